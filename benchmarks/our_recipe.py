"""Trains as `keras-flowers train` does and evaluates the test split; see recipes.py.

    python benchmarks/our_recipe.py PHOTOS OPTION...

Prints one line of JSON. Nothing is written but the image cache: the default model alone
would take 600 MB for each run.
"""

import json
import sys
import time

import numpy as np
from keras_flowers_cli import runtime

TEST_SPLIT = "0.15"


def main(arguments: list[str]) -> None:
    """Trains with the options and prints what came of it."""
    started = time.perf_counter()
    runtime.start_keras()
    from keras_flowers_cli.options import given_options
    from keras_flowers_cli.train import train as command
    from keras_flowers_cli.train_config import build_config

    import keras_flowers

    with command.make_context(
        "train", [*arguments, "--test-split", TEST_SPLIT]
    ) as context:
        given = given_options(context.params)
        config = build_config(given.pop("data"), given)
    run = keras_flowers.train(config, verbose=0)
    evaluation = keras_flowers.evaluate(run.model, run.datasets, split="test")
    labels = run.datasets.labels("test")
    answer = {
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        # What a model achieves that has learned nothing.
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "predicted_classes": len(np.unique(evaluation.predictions)),
        "history": run.history,
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS OPTION...")
    main(sys.argv[1:])
