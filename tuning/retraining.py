"""Retrains the best trial of a search on training and validation images."""

import dataclasses
from pathlib import Path

import keras
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.records import TrialRecord
from keras_flowers.tuning.results import hyperparameters_of

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.split_manifest import write_manifest
from keras_flowers.training.config import TrainingConfig
from keras_flowers.training.train import TrainingRun, train


def retrain_best(
    directory: Path, hypermodel: ImageClassifierHyperModel, best: TrialRecord
) -> TrainingRun:
    """Trains the hyperparameters of a trial on training and validation images.

    It trains up to the epoch of the score, from the same seed. No images are left to
    validate with; test images are not used.

    Args:
        directory: The directory of the search. The run directory is `retrained` in
            it, or `retrained-2` and so on.
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
    # Its schedules then count the steps of all these images.
    hypermodel = hypermodel.with_split(manifest)
    loader = type(hypermodel.loader).from_config(
        {
            **hypermodel.loader.get_config(),
            "batch_size": hp.values["batch_size"],
        }
    )

    def build(datasets: ImageDatasets) -> keras.Model:
        del datasets
        return hypermodel.build(hp, seed=best.executions[0].seed)

    config = TrainingConfig(loader, build, epochs=best.executions[0].epoch)
    run_directory = _find_free(directory / "retrained")
    return train(config, run_directory=run_directory, checkpoint_every=None, verbose=0)


def _find_free(path: Path) -> Path:
    number = 2
    free = path
    while free.exists():
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free
