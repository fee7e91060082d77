"""A space of small models that train without XLA, which takes longer to compile."""

from helpers import small_loader
from keras_flowers.tuning import ImageClassifierHyperModel


class SmallSpace(ImageClassifierHyperModel):
    def compile(self, hp, model):
        model.compile(jit_compile=False)


def small_space(tmp_path, space=SmallSpace, loader=None, **arguments):
    options = {"layers": (1, 2), "units": (8, 24, 8), "epochs": (1, 2)} | arguments
    return space(loader or small_loader(tmp_path), **options)
