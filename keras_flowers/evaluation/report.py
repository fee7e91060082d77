"""A run as one self-contained page: `report.html`, from `templates/report.html.j2`."""

import base64
import functools
import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import keras
import keras_flowers_settings as settings
from markupsafe import Markup, escape
from PIL import Image

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.evaluation.evaluate import (
    Evaluation,
    arrange_confusion_matrix,
    load_mistakes,
)
from keras_flowers.files import json_text, printable_path, write_text_atomically
from keras_flowers.notebook import jpeg_address
from keras_flowers.plots.confusion_matrix import draw_confusion_matrix
from keras_flowers.plots.history import PANELS, draw_metric
from keras_flowers.plots.rendering import png_bytes
from keras_flowers.plots.svg import svg_markup
from keras_flowers.plots.text import shorten

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

# Longer lists are cut, and the page says by how much.
_LIMITS = {
    "classes": 100,
    "findings": 10,  # of a kind
    "epochs": 200,
    "metrics": 16,
    "confusions": 10,
    "layers": 60,
    "config_characters": 100_000,
}
_MOST_IN_MATRIX = 15
_MOST_MISTAKES = 24
_HEAD_COLUMNS = 16
_CAPTION_COLUMNS = 60
_MATRIX_SIDE = 900


def write_report(
    path: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    datasets: ImageDatasets,
    history: Mapping[str, Sequence[float]],
    evaluation: Evaluation | str,
    model: keras.Model | None = None,
    seconds: float | None = None,
) -> None:
    """Writes a run as one self-contained HTML page.

    The page shows the data with its splits and audit findings, the curves, and of the
    evaluation the confusion matrix, the scores of each class, the calibration and the
    worst mistakes with their images; then the model and the configuration. Long
    lists are cut, and the page says by how much. It loads nothing and runs nothing:
    you can mail it, or open it from a disk.

    Args:
        path: The file to write or to replace, atomically. Its folder must exist; the
            name of the folder is the name of the run.
        config: The configuration as in `config.json`, of JSON types only.
        datasets: The data of the run.
        history: The list of values, one per epoch, of each metric; may be empty.
        evaluation: What `evaluate` returned, or a sentence that says why there is no
            evaluation.
        model: The built model, for its layers and parameters. If `model.keras` is in
            the folder of the report, its size is shown.
        seconds: How long the whole run took, including what is not part of an epoch,
            such as reading the images.

    Raises:
        InputError: If the file cannot be written.
    """
    path = Path(path)
    text = json_text(config)
    splits = {n: datasets.counts(n) for n in SPLIT_NAMES if getattr(datasets.split, n)}
    sections = {
        "data": "Data",
        "training": "Training",
        **(
            {
                "confusion-matrix": "Confusion matrix",
                "classes": "Classes",
                "calibration": "Calibration",
                "mistakes": "Worst mistakes",
            }
            if not isinstance(evaluation, str)
            else {"evaluation": "Evaluation"}
        ),
        **({} if model is None else {"model": "Model"}),
        "configuration": "Configuration",
    }
    values: dict[str, Any] = {"reason": evaluation, "evaluation": None}
    if not isinstance(evaluation, str):
        values = _describe_evaluation(evaluation)
    page = _load_template().render(
        values,
        title=f"Training run {path.absolute().parent.name}",
        **describe_style(),
        now=datetime.now().astimezone(),
        limits=_LIMITS,
        sections=sections,
        datasets=datasets,
        splits=splits,
        totals={name: sum(counts.values()) for name, counts in splits.items()},
        groups=_describe_config(config),
        model=None if model is None else _describe_model(model, path),
        seconds=seconds,
        # Escaped here: its line breaks are not those of a name.
        config_text=escape(text[: _LIMITS["config_characters"]]),
        config_length=len(text),
        **_describe_history(history),
    )
    write_text_atomically(path, page)


@functools.cache
def _load_template() -> jinja2.Template:
    return page_environment().from_string(_read_template("report.html.j2"))


def describe_style() -> dict[str, Any]:
    """Returns the style of a page, and the hash by which a browser allows it."""
    style = _read_template("report.css")
    digest = hashlib.sha256(style.encode()).digest()
    return {"style": Markup(style), "style_hash": base64.b64encode(digest).decode()}


def page_environment() -> jinja2.Environment:
    """Returns what renders a page: it escapes all text, and formats numbers."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_make_printable,
    )
    environment.filters |= {
        "count": _format_count,
        "duration": _format_duration,
        "metric": _format_metric,
        "size": _format_size,
        "number": _format_number,
        "short": functools.partial(shorten, room=_CAPTION_COLUMNS),
    }
    return environment


def _read_template(name: str) -> str:
    folder = resources.files("keras_flowers.evaluation") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _make_printable(value: Any) -> Any:
    """Shows control characters and undecodable bytes of names as escapes."""
    is_plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable_path(value) if is_plain else value


def _describe_history(history: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    epochs = max((len(values) for values in history.values()), default=0)
    scores = [value for value in history.get("val_accuracy", []) if value == value]
    speed = ([math.nan, *history.get("photos_per_second", [])])[-1]
    return {
        "history": history,
        "epochs": epochs,
        "history_plots": [
            _draw(draw_metric(history, metric), metric, _describe_curves(metric))
            for metric in PANELS
            if epochs and {metric, f"val_{metric}"} & set(history)
        ],
        "best_accuracy": max(scores, default=None),
        "speed": round(speed) if math.isfinite(speed) else None,
    }


def _describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    calibration = evaluation.calibration()
    split = evaluation.split or "evaluated"
    matrix_plot = None
    if len(evaluation.class_names) > _MOST_IN_MATRIX:
        grid = arrange_confusion_matrix(evaluation)
        matrix_plot = _embed(png_bytes(draw_confusion_matrix(grid, _MATRIX_SIDE)))
    return {
        "evaluation": evaluation,
        "calibration": calibration,
        "scores": list(evaluation.per_class.values()),
        "total": len(evaluation.labels),
        "split_name": "training" if split == "train" else split,
        "guessing_loss": math.log(len(evaluation.class_names)),
        "short_names": [shorten(n, _HEAD_COLUMNS) for n in evaluation.class_names],
        "matrix_plot": matrix_plot,
        "reliability_plot": _draw(
            calibration.plot(),
            "reliability",
            f"Reliability diagram; expected calibration error "
            f"{_format_number(calibration.error)}. The numbers are in the table.",
        ),
        "mistakes": [
            (mistake, None if tile.image is None else _embed_photo(tile.image))
            for mistake, tile in zip(
                evaluation.worst_mistakes(_MOST_MISTAKES),
                load_mistakes(evaluation, _MOST_MISTAKES),
                strict=True,
            )
        ],
    }


def _describe_config(config: Mapping[str, Any]) -> tuple[settings.Group, ...]:
    try:
        return settings.describe_run(config)
    except (KeyError, TypeError, ValueError):
        return ()  # not that of a run of `train`: the page has its whole text


def _describe_model(model: keras.Model, path: Path) -> dict[str, Any]:
    file = path.parent / "model.keras"
    return {
        "name": type(model).__name__,
        "layers": [
            (layer.name, type(layer).__name__, layer.count_params())
            for layer in model.layers
        ],
        "parameters": model.count_params(),
        "trainable": sum(math.prod(one.shape) for one in model.trainable_variables),
        "size": file.stat().st_size if file.is_file() else None,
    }


def _embed_photo(pixels: "np.ndarray") -> dict[str, Any]:
    height, width = pixels.shape[:2]
    return {"source": jpeg_address(pixels), "width": width, "height": height}


def _embed(content: bytes) -> dict[str, Any]:
    """Returns a PNG as an address that holds it, and its size in pixels."""
    width, height = Image.open(io.BytesIO(content)).size
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"source": source, "width": width, "height": height}


def _draw(figure: "Figure", name: str, description: str) -> Markup:
    return Markup(svg_markup(figure, name, description))


def _describe_curves(metric: str) -> str:
    return f"The {metric} of each epoch; the numbers are in the table below."


def _format_count(count: int) -> str:
    return f"{count:,}"


def _format_number(value: float | None, pattern: str = ".3f") -> str:
    if value is None:
        return "—"
    if math.isfinite(value):
        return format(value, pattern)
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"


def _format_metric(value: float, name: str) -> str:
    return str(int(value)) if name == "epoch" else _format_number(value, ".4g")


def _format_size(size: int) -> str:
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _format_duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return _format_number(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
