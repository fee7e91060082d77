"""A space of small models that train in a moment."""

import gc

import keras_tuner
from helpers import small_loader
from keras_flowers.tuning import ImageClassifierHyperModel

# A search collects garbage after each trial. What was imported need not be looked at.
gc.freeze()


class SmallSpace(ImageClassifierHyperModel):
    """Trains without a graph: tracing and compiling it takes longer than training."""

    def compile(self, hp, model):
        model.compile(run_eagerly=True, jit_compile=False)


class SmallGraphSpace(ImageClassifierHyperModel):
    """Trains with a graph as usual, but without XLA."""

    def compile(self, hp, model):
        model.compile(jit_compile=False)


def small_space(tmp_path, space=SmallSpace, loader=None, **arguments):
    defaults = {
        "layers": (1, 2),
        "units": (8, 24, 8),
        "epochs": (1, 2),
        "augmentation": False,
    }
    return space(loader or small_loader(tmp_path), **defaults | arguments)


def build(hypermodel, seed=None, **values):
    """Returns the model of some hyperparameters, and of the defaults of the others."""
    hp = keras_tuner.HyperParameters()
    hp.values = values
    return hypermodel.build(hp, seed=seed)
