"""`keras-flowers lr-find`: finds a learning rate by a range test."""

import time
from pathlib import Path
from typing import Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import (
    arguments_for,
    check_writable,
    given_options,
    new_run_directory,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable, write_figure
from keras_flowers_cli.train_config import build_config, check_options
from keras_flowers_cli.train_view import show_datasets

_ROWS = 10


@click.command("lr-find")
@click.argument("data")
@setting_options("lr-find")
def lr_find(data: str, plot_file: Path | None, as_json: bool, **options: Any) -> None:
    """Find a learning rate: train a few steps while it rises until the loss explodes.

    The range test of Smith (2017). Pass the options of the model that you want to
    train. Nothing is saved but the plot.
    """
    given = given_options(options)
    check_options(given)
    plot_file = plot_file or new_run_directory(data, "-lr").with_suffix(".png")
    check_writable(plot_file.parent, "--plot")
    runtime.start_keras()
    from keras_flowers.training.learning_rate import find_learning_rate
    from keras_flowers.training.preparation import prepare_run

    output, started = Output(as_json), time.monotonic()
    with ProgressBars() as progress:
        prepared = prepare_run(build_config(data, given), progress)
        progress.stop()
        show_datasets(output, prepared.datasets)
        search = find_learning_rate(
            prepared.model,
            prepared.datasets,
            progress=progress,
            **arguments_for("find_learning_rate", "lr-find", given),
        )
    rows = TextTable("learning rate", "loss", "mean")
    means = search.smoothed_losses
    for step in range(0, len(means), max(1, len(means) // _ROWS)):
        rows.add_row(
            f"{search.rates[step]:.1e}",
            f"{search.losses[step]:.3f}",
            f"{means[step]:.3f}",
        )
    output.show(rows)
    plot_file.parent.mkdir(parents=True, exist_ok=True)
    write_figure(search.plot(), plot_file)
    output.say(f"written to {plot_file}")
    seconds = time.monotonic() - started
    output.say(f"{len(means)} steps, {seconds:.0f} s in all")
    output.say(f"Suggestion: --learning-rate {search.suggestion:g}")
    output.result({**search.to_json(), "plot": str(plot_file), "seconds": seconds})
