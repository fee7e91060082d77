"""A run as one self-contained page: `report.html`, from `templates/report.html.j2`."""

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_flowers_settings as settings
import numpy as np
from keras_flowers_runtime.heat import blend_heat, place_heat
from keras_flowers_runtime.images import ImageOptions, load_image
from markupsafe import escape
from PIL import Image

from keras_flowers import explanation
from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.findings import group_findings
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.evaluation.cross_validation import CrossValidation
from keras_flowers.evaluation.evaluate import (
    AnyEvaluation,
    Evaluation,
    Mistake,
    arrange_confusion_matrix,
    load_mistakes,
)
from keras_flowers.evaluation.label_report import describe_labels
from keras_flowers.evaluation.multi_label import MultiLabelEvaluation
from keras_flowers.evaluation.pages import format_number, render_page
from keras_flowers.evaluation.report_parts import (
    draw_inline,
    draw_reliability,
    embed_photo,
    name_split,
)
from keras_flowers.files import json_text, write_text_atomically
from keras_flowers.history import SCORES, collapse_epoch, find_score
from keras_flowers.plots.confusion_matrix import draw_confusion_matrix
from keras_flowers.plots.history import PANELS, draw_metric
from keras_flowers.plots.rendering import png_bytes
from keras_flowers.plots.text import shorten

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
# A heat map takes a moment.
_MOST_EXPLAINED = 4
_HEAD_COLUMNS = 16
_MATRIX_SIDE = 900


def write_report(
    path: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    datasets: ImageDatasets,
    history: Mapping[str, Sequence[float]],
    evaluation: AnyEvaluation | str,
    model: keras.Model | None = None,
    saved_epoch: int | None = None,
    uncalibrated: AnyEvaluation | None = None,
    cross_validation: CrossValidation | None = None,
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
        model: The built model, for its layers and parameters, and, if it is an
            `ImageClassifier`, for heat maps of the four worst mistakes. If
            `model.keras` is in the folder of the report, its size is shown.
        saved_epoch: The epoch that the weights of the model are from, counted from 1.
        uncalibrated: The evaluation of the same images without the temperature of the
            model; `None` if it has none.
        cross_validation: The cross-validation of the head of the model, or `None`.
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
        **_name_sections(evaluation),
        **({} if cross_validation is None else {"folds": "Cross-validation"}),
        **({} if model is None else {"model": "Model"}),
        "configuration": "Configuration",
    }
    values: dict[str, Any] = {"reason": evaluation, "evaluation": None, "figures": []}
    if isinstance(evaluation, MultiLabelEvaluation):
        values = describe_labels(evaluation)
    elif not isinstance(evaluation, str):
        values = _describe_evaluation(evaluation, model)
    page = render_page(
        "report.html.j2",
        "report.css",
        **values,
        title=f"Training run {path.absolute().parent.name}",
        limits=_LIMITS,
        sections=sections,
        datasets=datasets,
        findings=group_findings(datasets.audit.findings),
        splits=splits,
        totals={name: len(datasets.records(name)) for name in splits},
        groups=_describe_config(config),
        model=None if model is None else _describe_model(model, path),
        seconds=seconds,
        uncalibrated=uncalibrated,
        cross_validation=cross_validation,
        temperature=getattr(model, "temperature", None),
        # Escaped here: its line breaks are not those of a name.
        config_text=escape(text[: _LIMITS["config_characters"]]),
        config_length=len(text),
        **_describe_history(history, saved_epoch),
    )
    write_text_atomically(path, page)


def _name_sections(evaluation: AnyEvaluation | str) -> dict[str, str]:
    """Returns the sections of an evaluation by anchor."""
    if isinstance(evaluation, str):
        return {"evaluation": "Evaluation"}
    has_matrix = isinstance(evaluation, Evaluation)
    return {
        **({"confusion-matrix": "Confusion matrix"} if has_matrix else {}),
        "classes": "Classes",
        "calibration": "Calibration",
        "mistakes": "Worst mistakes",
    }


def _describe_history(
    history: Mapping[str, Sequence[float]], saved_epoch: int | None
) -> dict[str, Any]:
    epochs = max((len(values) for values in history.values()), default=0)
    column = find_score(history) or ""
    scores = history[column] if column.startswith("val_") else ()
    known = [value for value in scores if value == value]
    score_name = SCORES.get(column.removeprefix("val_"), "")
    speed = ([math.nan, *history.get("photos_per_second", [])])[-1]
    return {
        "history": history,
        "epochs": epochs,
        "history_plots": [
            draw_inline(
                draw_metric(history, metric, saved_epoch),
                metric,
                _describe_curves(metric),
            )
            for metric in PANELS
            if epochs and {metric, f"val_{metric}"} & set(history)
        ],
        "best_score": max(known, default=None),
        "score_name": score_name,
        "saved_epoch": saved_epoch,
        "collapse_epoch": collapse_epoch(history),
        "speed": round(speed) if math.isfinite(speed) else None,
    }


def _describe_evaluation(
    evaluation: Evaluation, model: keras.Model | None
) -> dict[str, Any]:
    calibration = evaluation.calibration()
    split = name_split(evaluation)
    scores = list(evaluation.per_class.values())
    total = len(evaluation.labels)
    low, high = map(format_number, evaluation.accuracy_interval)
    guess = format_number(max(one.count for one in scores) / total)
    figures = [
        (
            f"Accuracy, {split}",
            format_number(evaluation.accuracy),
            f"95 % interval {low} to {high}; {total - evaluation.mistakes:,} of "
            f"{total:,} right; always the largest class: {guess}",
        ),
        (
            f"Loss, {split}",
            format_number(evaluation.loss),
            f"guessing: {format_number(math.log(len(evaluation.class_names)))}",
        ),
        (
            "Expected calibration error",
            format_number(calibration.error),
            f"mean confidence {format_number(calibration.confidence)}",
        ),
    ]
    matrix_plot = None
    if len(evaluation.class_names) > _MOST_IN_MATRIX:
        grid = arrange_confusion_matrix(evaluation)
        matrix_plot = _embed(png_bytes(draw_confusion_matrix(grid, _MATRIX_SIDE)))
    return {
        "evaluation": evaluation,
        "details": "single_label.html.j2",
        "figures": figures,
        "calibration": calibration,
        "scores": scores,
        "total": total,
        "has_one_answer": len(np.unique(evaluation.predictions)) == 1,
        "split_name": split,
        "short_names": [shorten(n, _HEAD_COLUMNS) for n in evaluation.class_names],
        "matrix_plot": matrix_plot,
        "reliability_plot": draw_reliability(calibration),
        "mistakes": _describe_mistakes(evaluation, model),
    }


def _describe_mistakes(
    evaluation: Evaluation, model: keras.Model | None
) -> list[tuple[Mistake, dict[str, Any] | None, dict[str, Any] | None]]:
    """Returns the worst mistakes, their images, and the heat maps of the first ones."""
    mistakes = evaluation.worst_mistakes(_MOST_MISTAKES)
    images = [tile.image for tile in load_mistakes(evaluation, _MOST_MISTAKES)]
    pairs = list(zip(mistakes, images, strict=True))
    shown = [
        (mistake, image)
        for mistake, image in pairs[:_MOST_EXPLAINED]
        if image is not None and mistake.predicted_class is not None
    ]
    heats = _explain_mistakes(model, evaluation, shown)
    return [
        (mistake, None if image is None else embed_photo(image), heats.get(mistake))
        for mistake, image in pairs
    ]


def _explain_mistakes(
    model: keras.Model | None,
    evaluation: Evaluation,
    shown: Sequence[tuple[Mistake, "np.ndarray"]],
) -> dict[Mistake, dict[str, Any]]:
    """Returns images with the heat that supports the predicted class, by mistake."""
    heatmaps_of = None if model is None else explanation.heatmap_function(model)
    if model is None or heatmaps_of is None or not shown:
        return {}
    names, options = evaluation.class_names, ImageOptions(resize=model.resize)
    # As one batch: most of the time goes into calling the layers.
    heats = heatmaps_of(
        np.stack([load_image(m.path, model.image_size, options) for m, _ in shown]),
        np.array([names.index(m.predicted_class or "") for m, _ in shown], np.int32),
    )
    return {
        mistake: embed_photo(
            blend_heat(image, place_heat(heat, model.resize, image.shape[:2]))
        )
        for (mistake, image), heat in zip(shown, heats, strict=True)
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


def _embed(content: bytes) -> dict[str, Any]:
    """Returns a PNG as an address that holds it, and its size in pixels."""
    width, height = Image.open(io.BytesIO(content)).size
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"source": source, "width": width, "height": height}


def _describe_curves(metric: str) -> str:
    return f"The {metric} of each epoch; the numbers are in the table below."
