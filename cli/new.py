"""`keras-flowers new`: writes a script and a notebook to start from."""

import json
import re
from pathlib import Path
from typing import Any

import click
from keras_flowers_cli.options import UserPath, check_writable, setting_options

# Cells begin with `# %%`, as editors know them.
_SCRIPT = '''\
"""Trains an image classifier on a folder of images, with one folder per class."""

# %% [markdown]
# # Train an image classifier
#
# `DATA` is a folder that contains one folder of images per class, an archive, a URL of
# one, or `"sample"`, which draws a small data set.

# %%
import os

# Makes training on a CPU faster. Set it before you import Keras.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

import keras
import keras_flowers
from keras_flowers.callbacks import plot_history

DATA = {data}
EPOCHS = 15
MODEL = {model}
PLOT = {plot}

# %% [markdown]
# Load the images. Each is decoded once and cached; damaged files are left out.

# %%
datasets = keras_flowers.ImageDatasetLoader(DATA, image_size=(128, 128), seed=42).load()
print(datasets.class_names, datasets.counts("train"))

# %% [markdown]
# Build a model. For much better accuracy, add `backbone=keras_flowers.Backbone(
# "mobilenet_v2")` and load the images at `image_size=(224, 224)`.

# %%
model = keras_flowers.ImageClassifier(
    datasets.class_names, image_size=datasets.image_size, seed=42
)
model.compile()

# %% [markdown]
# Train it.

# %%
history = model.fit(
    datasets.train, validation_data=datasets.validation, epochs=EPOCHS, verbose=2
)
figure = plot_history(history)
figure.savefig(PLOT)
figure  # a notebook shows it

# %% [markdown]
# See what it gets right and wrong on the validation images.

# %%
evaluation = keras_flowers.evaluate(model, datasets)
print("accuracy:", evaluation.accuracy)
for name, scores in evaluation.per_class.items():
    print(name, scores)

# %% [markdown]
# Save it, load it, and classify an image.

# %%
model.save(MODEL)
model = keras.models.load_model(MODEL)
print(model.classify(datasets.paths("validation")[:1]))
'''


@click.command()
@click.argument("name", type=UserPath(path_type=Path))
@setting_options("new")
def new(name: Path, data: str) -> None:
    """Write NAME.py and NAME.ipynb: a commented script and the same as a notebook.

    Both train, evaluate, save and load a model, and run as they are.
    """
    base = name.with_suffix("") if name.suffix in (".py", ".ipynb") else name
    script, notebook = (Path(f"{base}{suffix}") for suffix in (".py", ".ipynb"))
    for path in (script, notebook):
        if path.exists():
            raise click.ClickException(f"{path} exists already. Choose another NAME.")
    check_writable(script.parent, "NAME")
    text = _SCRIPT.format(
        data=_quote(_find_data(data)),
        model=_quote(f"{base.name}.keras"),
        plot=_quote(f"{base.name}.png"),
    )
    script.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((script, text), (notebook, to_notebook(text))):
        # Never overwrites a file, not even one that appeared meanwhile.
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    click.echo(f"{script}: run it with python {script}")
    click.echo(f"{notebook}: open it with jupyter lab {notebook}")


def _find_data(data: str) -> str:
    """Returns the data source, as an absolute path if it is one."""
    if data in ("sample", "flower_photos") or "://" in data:
        return data
    path = Path(data).expanduser()
    if not path.exists():
        raise click.UsageError(f"--data: there is nothing at {data}.")
    return str(path.absolute())


def _quote(text: str) -> str:
    return json.dumps(text)


def to_notebook(script: str) -> str:
    """Returns a script with `# %%` cells as a Jupyter notebook, in JSON."""
    # A notebook then shows figures of Matplotlib that were made without pyplot.
    script = script.replace("import os\n", "%matplotlib inline\nimport os\n", 1)
    _, *parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    cells: list[dict[str, Any]] = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        lines = text.strip().splitlines(keepends=True)
        cell: dict[str, Any] = {"id": f"cell-{len(cells) + 1}", "metadata": {}}
        if kind.strip() == "[markdown]":
            cell |= {"cell_type": "markdown"}
            lines = [re.sub(r"^# ?", "", line) for line in lines]
        else:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append({**cell, "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
