"""Trains the winner of a search once more, on the validation images as well."""

import copy
import dataclasses
from pathlib import Path

import keras
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.records import TrialRecord
from keras_flowers.tuning.results import hyperparameters_of

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.splits import write_manifest
from keras_flowers.training.config import TrainingConfig
from keras_flowers.training.train import TrainingRun, train


def retrain_best(
    directory: Path, hypermodel: ImageClassifierHyperModel, best: TrialRecord
) -> TrainingRun:
    """Trains the hyperparameters of a trial on training and validation images.

    It trains for as many epochs as the score is of, from the same seed. There is
    nothing left to validate with; test images stay aside.

    Args:
        directory: The folder of the search; a run directory `retrained` is made
            in it, or `retrained-2` and so on.
        hypermodel: Builds the model.
        best: A completed trial.

    Returns:
        The run.
    """
    split = hypermodel.datasets().split
    everything = sorted((*split.train, *split.validation), key=lambda image: image.path)
    manifest = directory / "retraining_split.json"
    write_manifest(
        dataclasses.replace(split, train=tuple(everything), validation=()), manifest
    )
    hp = hyperparameters_of(best)
    # A schedule counts the steps of more images.
    hypermodel = copy.copy(hypermodel)
    hypermodel.use_split(manifest)
    hypermodel.seed = best.executions[0].seed
    loader = type(hypermodel.loader).from_config(
        {
            **hypermodel.loader.get_config(),
            "batch_size": hp.values["batch_size"],
        }
    )

    def build(datasets: ImageDatasets) -> keras.Model:
        del datasets
        return hypermodel.build(hp)

    config = TrainingConfig(loader, build, epochs=best.executions[0].epoch)
    run_directory = _free(directory / "retrained")
    return train(config, run_directory=run_directory, checkpoint_every=None, verbose=0)


def _free(path: Path) -> Path:
    number = 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free
