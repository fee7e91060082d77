"""A run as one page that needs nothing beside it: `report.html`."""

import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.image_files import load_thumbnail
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.errors import InputError
from keras_flowers.evaluation.calibration import Calibration
from keras_flowers.evaluation.evaluate import ClassScores, Evaluation, Mistake
from keras_flowers.evaluation.markup import (
    Cell,
    Content,
    Html,
    element,
    joined,
    page,
    picture,
    preformatted,
    table,
)
from keras_flowers.files import json_text, write_text_atomically
from keras_flowers.plots.history import plot_history
from keras_flowers.plots.text import png_bytes, shortened

History = Mapping[str, Sequence[float]]

# What is longer is cut, and the page says by how much.
_MOST_CLASSES = 100
_MOST_FINDINGS = 10  # of a kind
_MOST_EPOCHS = 200
_MOST_METRICS = 16
_MOST_CONFUSIONS = 10
_MOST_IN_MATRIX = 15
_MOST_MISTAKES = 24
_MOST_SETTINGS = 120
_MOST_CONFIG_CHARACTERS = 100_000
_VALUE_COLUMNS = 160
_HEAD_COLUMNS = 16
_CAPTION_COLUMNS = 60
_THUMBNAIL_SIDE = 240
_JPEG_QUALITY = 80
_DPI = 110
# Of Keras's configurations: where a class comes from, not what it does.
_NO_SETTINGS = frozenset(
    {"module", "registered_name", "class_name", "build_config", "versions", "format"}
)

_STYLE = """
:root { --text: #1c2430; --soft: #566072; --ground: #f5f6f8; --card: #fff;
  --line: #d9dee6; --accent: #0f766e; --warn: #fff4e0; --warn-line: #d98200; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e6e9ef; --soft: #a3adbd; --ground: #12161c; --card: #1b212a;
    --line: #343d4a; --accent: #5ec8bc; --warn: #3a2c12; --warn-line: #e0a030; } }
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 0 0 .8rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
h4 { font-size: .95rem; margin: .8rem 0 .2rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
a { color: var(--accent); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
code, pre, .path { font: .85em/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { white-space: pre-wrap; margin: .6rem 0; padding: .8rem;
  border: 1px solid var(--line); border-radius: .4rem; }
.soft, .note, caption { color: var(--soft); }
.note { font-size: .9rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  margin: .8rem 0 1.2rem; padding: 0; }
section, .figures { background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; margin: 0 0 1.2rem; padding: 1.1rem 1.2rem; }
section { scroll-margin-top: .5rem; }
.figures { display: grid; gap: 1rem 1.4rem;
  grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); }
.figures div { display: flex; flex-direction: column; }
.figures dt { color: var(--soft); font-size: .9rem; }
.figures dd { margin: 0; }
.figures .value { font-size: 1.7rem; line-height: 1.2; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.figures .hint { color: var(--soft); font-size: .85rem; }
.warning { background: var(--warn); border: 1px solid var(--warn-line);
  border-radius: .6rem; padding: .7rem 1rem; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .9rem; padding: 0 0 .3rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  text-align: right; overflow-wrap: normal; }
th:first-child { text-align: left; font-weight: 500; padding-left: 0;
  overflow-wrap: anywhere; min-width: 7rem; }
thead th, thead th:first-child { font-weight: 600; vertical-align: bottom; }
tr.all > *, .total { font-weight: 650; }
.text, .settings td, .settings th { text-align: left; overflow-wrap: anywhere;
  min-width: 9rem; }
.matrix td { text-align: center; min-width: 3rem; border: 1px solid var(--card); }
.matrix th { text-align: left; }
.plot { overflow-x: auto; margin: 0; }
.plot img { display: block; background: #fff; border-radius: .4rem; height: auto;
  max-width: 100%; }
.plot .wide { min-width: 40rem; }
.columns { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.columns > * { flex: 1 1 20rem; min-width: 0; }
.columns th:first-child { white-space: nowrap; }
.mistakes { list-style: none; padding: 0; margin: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
.mistakes figure { margin: 0; }
.mistakes .photo { height: 10.5rem; display: flex; align-items: center;
  justify-content: center; background: var(--ground); border-radius: .4rem;
  overflow: hidden; color: var(--soft); }
.mistakes img { max-width: 100%; max-height: 100%; width: auto; height: auto; }
.mistakes figcaption { font-size: .9rem; line-height: 1.35; padding-top: .35rem; }
.mistakes .path { display: block; color: var(--soft); font-size: .75rem; }
summary { cursor: pointer; color: var(--accent); margin: .6rem 0; }
ul.findings { margin: 0; padding-left: 1.1rem; font-size: .9rem; }
footer { color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { section, .figures { padding: .9rem; }
  th, td { padding: .25rem .45rem; } h1 { font-size: 1.5rem; }
  .figures { grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); }
  .mistakes { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); } }
@media print { body { background: #fff; font-size: 10pt; } main { max-width: none;
    padding: 0; } nav { display: none; }
  section, .figures { border: 0; padding: 0; margin-bottom: 1.5rem; }
  h2, h3, h4 { break-after: avoid; } tr, figure, li, dl div { break-inside: avoid; }
  .scroll, .plot { overflow: visible; } .plot .wide { min-width: 0; }
  details::details-content { content-visibility: visible; display: block; }
  td, .mistakes .photo { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; } }
""" + "".join(
    # The shares of the confusion matrix in steps of a twentieth. Even the darkest
    # leaves the text readable.
    f".s{step} {{ background: rgb(37 99 235 / {3.5 * step}%); }}\n"
    for step in range(1, 21)
)


@dataclass(frozen=True)
class _Section:
    """A part of the page.

    Attributes:
        anchor: Its place in the address.
        title: Its heading.
        content: What follows.
    """

    anchor: str
    title: str
    content: Html


def write_report(
    path: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    datasets: ImageDatasets,
    history: History,
    evaluation: Evaluation | str,
) -> None:
    """Writes a run as one page of HTML that needs nothing beside it.

    The page holds the data with its splits and findings, the curves, and of the
    evaluation the confusion matrix, the scores per class, the calibration and the
    worst mistakes with their images; then the configuration and the versions. Long
    lists are cut, and the page says by how much. It loads nothing and runs nothing:
    it can be mailed, and opened from a disk.

    Args:
        path: The file to write or to replace, which appears when it is complete. Its
            folder must exist; the name of the folder is the name of the run.
        config: The configuration as in `config.json`, with JSON types alone.
        datasets: The data of the run.
        history: The list of values, one per epoch, of each metric; may be empty.
        evaluation: What `evaluate` returned, or a sentence that says why there is
            none.

    Raises:
        InputError: If the file cannot be written.
    """
    path = Path(path)
    title = f"Training run {path.absolute().parent.name}"
    sections = [
        _data_section(datasets),
        _training_section(history),
        *(
            [_Section("evaluation", "Evaluation", element("p", evaluation))]
            if isinstance(evaluation, str)
            else _evaluation_sections(evaluation)
        ),
        _configuration_section(config),
        _versions_section(config),
    ]
    links = (
        element("li", element("a", one.title, href=f"#{one.anchor}"))
        for one in sections
    )
    now = datetime.now().astimezone()
    body = joined(
        [
            element(
                "header",
                element("h1", title),
                element(
                    "p",
                    element(
                        "time",
                        now.strftime("%Y-%m-%d %H:%M %Z"),
                        datetime=now.isoformat(timespec="seconds"),
                    ),
                    f" · {datasets.audit.root}",
                    class_="soft",
                ),
            ),
            _warning(evaluation),
            _figures(datasets, history, evaluation),
            element("nav", element("ul", *links), aria_label="Sections"),
            *map(_as_element, sections),
            element("footer", element("p", "Written by keras_flowers.")),
        ]
    )
    write_text_atomically(path, page(title, _STYLE, body))


def _as_element(section: _Section) -> Html:
    return element(
        "section",
        element("h2", section.title, id=f"{section.anchor}-title"),
        section.content,
        id=section.anchor,
        aria_labelledby=f"{section.anchor}-title",
    )


def _warning(evaluation: Evaluation | str) -> Html | None:
    if isinstance(evaluation, str) or not evaluation.unanswered:
        return None
    return element(
        "p",
        f"For {_count(evaluation.unanswered)} of {_count(len(evaluation.labels))} "
        "photos the model gave no probabilities (NaN): its training diverged. They "
        "count as mistakes. A lower learning rate is the first thing to try.",
        class_="warning",
        role="note",
    )


# --- the figures at the top


def _figures(
    datasets: ImageDatasets, history: History, evaluation: Evaluation | str
) -> Html:
    figures: list[tuple[str, str, str]] = []
    if not isinstance(evaluation, str):
        figures += _evaluation_figures(evaluation)
    splits = [f"{_count(n)} {name}" for name, n in _sizes(datasets).items() if n]
    images = _count(sum(_sizes(datasets).values()))
    figures += [
        *_training_figures(history),
        ("Photos", images, ", ".join(splits)),
        ("Classes", _count(len(datasets.class_names)), ""),
    ]
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", name),
                element("dd", value, class_="value"),
                element("dd", hint, class_="hint") if hint else None,
            )
            for name, value, hint in figures
        ),
        class_="figures",
    )


def _evaluation_figures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    total = len(evaluation.labels)
    largest = max(scores.count for scores in evaluation.per_class.values())
    calibration = evaluation.calibration()
    return [
        (
            f"Accuracy, {_split_name(evaluation)}",
            _number(evaluation.accuracy, 3),
            f"{_count(total - evaluation.mistakes)} of {_count(total)} right; always "
            f"the largest class: {_number(largest / total, 3)}",
        ),
        (
            f"Loss, {_split_name(evaluation)}",
            _number(evaluation.loss, 3),
            f"guessing: {_number(math.log(len(evaluation.class_names)), 3)}",
        ),
        (
            "Expected calibration error",
            _number(calibration.error, 3),
            f"mean confidence {_number(calibration.confidence, 3)}",
        ),
    ]


def _training_figures(history: History) -> list[tuple[str, str, str]]:
    epochs = _epochs(history)
    scores = [value for value in history.get("val_accuracy", []) if value == value]
    hint = f"best validation accuracy {_number(max(scores), 3)}" if scores else ""
    figures = [("Epochs", _count(epochs), hint)]
    if history.get("seconds"):
        rates = history.get("photos_per_second", [])
        rate = f"{_count(round(rates[-1]))} photos/s" if _is_finite(rates) else ""
        figures.append(("Training time", _duration(sum(history["seconds"])), rate))
    return figures


# --- data


def _data_section(datasets: ImageDatasets) -> _Section:
    counts = {name: datasets.counts(name) for name, n in _sizes(datasets).items() if n}
    names = datasets.class_names
    rows = [
        (name, *(_count(of_class[name]) for of_class in counts.values()))
        for name in names[:_MOST_CLASSES]
    ]
    totals = (_count(sum(of_class.values())) for of_class in counts.values())
    all_row = (Cell("all classes", "total"), *(Cell(n, "total") for n in totals))
    left = len(datasets.split.not_in_manifest)
    content = [
        table(
            "Photos of each class and split",
            ("class", *counts),
            [*rows, all_row],
            _left_out(len(names) - _MOST_CLASSES, "more classes"),
        ),
        element(
            "p",
            f"{_count(left)} photos of the folder are not in the split manifest.",
        )
        if left
        else None,
        element("h3", "What the audit found"),
        *_findings(datasets),
    ]
    return _Section("data", "Data", joined(content))


def _findings(datasets: ImageDatasets) -> Iterator[Html]:
    findings = datasets.audit.findings
    if not findings:
        yield element("p", "Nothing: every file can be used, and none stands twice.")
    kinds = Counter(found.kind for found in findings)
    for kind, count in kinds.items():
        shown = [found.message for found in findings if found.kind == kind]
        yield element("h4", f"{kind.replace('_', ' ').capitalize()} ({_count(count)})")
        yield element(
            "ul",
            *(element("li", message) for message in shown[:_MOST_FINDINGS]),
            class_="findings",
        )
        note = _left_out(count - _MOST_FINDINGS, "more")
        if note is not None:
            yield element("p", note, class_="note")


# --- training


def _training_section(history: History) -> _Section:
    epochs = _epochs(history)
    if not epochs:
        content = element("p", "No epoch was completed.")
        return _Section("training", "Training", content)
    columns = list(history)[:_MOST_METRICS]
    rows = [
        [_metric(name, history[name][index]) for name in columns]
        for index in range(max(0, epochs - _MOST_EPOCHS), epochs)
    ]
    notes = (
        _left_out(epochs - _MOST_EPOCHS, "earlier epochs"),
        _left_out(len(history) - _MOST_METRICS, "more columns"),
    )
    note = " ".join(filter(None, notes))
    heads = [name.replace("_", " ") for name in columns]
    numbers = table("One row per epoch", heads, rows, note or None)
    plot = _figure(
        png_bytes(plot_history(history), _DPI),
        f"Loss and accuracy over {epochs} epochs; the numbers are in the table below.",
        "wide",
    )
    details = element("details", element("summary", "Numbers of each epoch"), numbers)
    return _Section("training", "Training", joined([plot, details]))


def _metric(name: str, value: float) -> str:
    return str(int(value)) if name == "epoch" else _significant(value)


# --- evaluation


def _evaluation_sections(evaluation: Evaluation) -> list[_Section]:
    return [
        _confusion_section(evaluation),
        _classes_section(evaluation),
        _calibration_section(evaluation.calibration(), evaluation),
        _mistakes_section(evaluation),
    ]


def _confusion_section(evaluation: Evaluation) -> _Section:
    if len(evaluation.class_names) <= _MOST_IN_MATRIX:
        matrix = _matrix_table(evaluation)
    else:
        matrix = _figure(
            png_bytes(evaluation.plot_confusion_matrix(), 80),
            f"Confusion matrix of {len(evaluation.class_names)} classes; the most "
            "frequent confusions are in the table below.",
        )
    confusions = evaluation.confusions
    rows = (
        (one.true_class, Cell(one.predicted_class, "text"), _count(one.count))
        for one in confusions[:_MOST_CONFUSIONS]
    )
    frequent = table(
        "The most frequent confusions",
        ("true class", Cell("called", "text"), "photos"),
        rows,
        _left_out(len(confusions) - _MOST_CONFUSIONS, "more confusions"),
    )
    content = [
        element(
            "p",
            f"Of the {_count(len(evaluation.labels))} {_split_name(evaluation)} "
            "photos. A row is a true class, a column what the model called its photos; "
            "the diagonal is right. The shade is the part of the true class.",
        ),
        matrix,
        element("h3", "Taken for each other"),
        frequent if confusions else element("p", "No class is taken for another."),
    ]
    return _Section("confusion-matrix", "Confusion matrix", joined(content))


def _matrix_table(evaluation: Evaluation) -> Html:
    names = [shortened(name, _HEAD_COLUMNS) for name in evaluation.class_names]
    matrix = evaluation.confusion_matrix
    counts = [scores.count for scores in evaluation.per_class.values()]
    rows: list[Sequence[Content | Cell]] = []
    for name, row, total in zip(names, matrix.tolist(), counts, strict=True):
        steps = (round(20 * count / max(total, 1)) for count in row)
        cells = zip(row, steps, strict=True)
        rows.append((name, *(Cell(_count(n), f"s{step}") for n, step in cells)))
    content = table(
        "Photos by true and predicted class", ("true \\ called", *names), rows
    )
    return element("div", content, class_="matrix")


def _classes_section(evaluation: Evaluation) -> _Section:
    scores = evaluation.per_class
    names = list(scores)
    cut = len(names) - _MOST_CLASSES
    if cut > 0:
        names = sorted(names, key=lambda name: scores[name].f1)[:_MOST_CLASSES]
    content = table(
        "Scores of each class" + (", the lowest F1 first" if cut > 0 else ""),
        ("class", "precision", "recall", "F1", "photos"),
        (_scores_row(name, scores[name]) for name in names),
        _left_out(cut, "more classes"),
    )
    text = (
        "Precision: of the photos that were called so, the part that are. Recall: of "
        "the photos of the class, the part that was found. F1 is their harmonic mean."
    )
    return _Section("classes", "Classes", joined([element("p", text), content]))


def _scores_row(name: str, scores: ClassScores) -> tuple[str, ...]:
    values = (_number(v, 3) for v in (scores.precision, scores.recall, scores.f1))
    return (name, *values, _count(scores.count))


def _calibration_section(calibration: Calibration, evaluation: Evaluation) -> _Section:
    error = _number(calibration.error, 3)
    text = (
        f"A model is calibrated where it is right as often as it is sure. Here the "
        f"mean confidence is {_number(calibration.confidence, 3)} and the accuracy "
        f"{_number(calibration.accuracy, 3)}; the expected calibration error, the mean "
        f"distance between the two in {len(calibration.bins)} bins, is {error}."
    )
    rows = (
        (
            f"{_number(one.lower, 3)} to {_number(one.upper, 3)}",
            _count(one.count),
            _number(one.confidence, 3),
            _number(one.accuracy, 3),
        )
        for one in calibration.bins
    )
    heads = ("confidence", "photos", "mean confidence", "accuracy")
    left_out = f"{_count(calibration.unanswered)} photos without probabilities (NaN)."
    content = element(
        "div",
        _figure(
            png_bytes(calibration.plot(), _DPI),
            f"Reliability diagram; expected calibration error {error}. The numbers are "
            "in the table.",
        ),
        table(
            f"Bins of the {_count(len(evaluation.labels))} photos",
            heads,
            rows,
            left_out if calibration.unanswered else None,
        ),
        class_="columns",
    )
    return _Section("calibration", "Calibration", joined([element("p", text), content]))


def _mistakes_section(evaluation: Evaluation) -> _Section:
    mistakes = evaluation.worst_mistakes(_MOST_MISTAKES)
    if not mistakes:
        text = f"None: all {_count(len(evaluation.labels))} photos are right."
        return _Section("mistakes", "Worst mistakes", element("p", text))
    text = (
        f"{_count(len(mistakes))} of the {_count(evaluation.mistakes)} photos whose "
        "predicted class is wrong, the highest loss first: those where the model gave "
        "the true class the least. Such a photo often stands in the wrong folder."
    )
    items = (element("li", _mistake(one, evaluation)) for one in mistakes)
    content = [element("p", text), element("ol", *items, class_="mistakes")]
    return _Section("mistakes", "Worst mistakes", joined(content))


def _mistake(mistake: Mistake, evaluation: Evaluation) -> Html:
    path = evaluation.shown_path(mistake.path)
    true, called = mistake.true_class, mistake.predicted_class
    answer: tuple[Content, ...] = (
        (" got no answer (NaN)",)
        if called is None
        else (
            " called ",
            element("strong", shortened(called, _CAPTION_COLUMNS)),
            f" with {_number(mistake.probability, 3)}",
        )
    )
    return element(
        "figure",
        element("div", _thumbnail(mistake, path), class_="photo"),
        element(
            "figcaption",
            element("strong", shortened(true, _CAPTION_COLUMNS)),
            *answer,
            element("span", path, class_="path"),
        ),
    )


def _thumbnail(mistake: Mistake, path: str) -> Html:
    try:
        pixels = load_thumbnail(mistake.path, _THUMBNAIL_SIDE)
    except InputError:
        return element("span", "cannot be read")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    height, width, _ = pixels.shape
    alt = f"The photo {path} of the class {mistake.true_class}"
    return picture(buffer.getvalue(), "jpeg", alt, width, height)


# --- configuration


def _configuration_section(config: Mapping[str, Any]) -> _Section:
    settings = list(_settings(config, ""))
    rows = ((name, value) for name, value in settings[:_MOST_SETTINGS])
    overview = element(
        "div",
        table(
            "What repeats the run",
            ("setting", "value"),
            rows,
            _left_out(len(settings) - _MOST_SETTINGS, "more settings"),
        ),
        class_="settings",
    )
    text = json_text(config)
    whole = element(
        "details",
        element("summary", "The whole configuration"),
        preformatted(text[:_MOST_CONFIG_CHARACTERS]),
        _note(len(text) - _MOST_CONFIG_CHARACTERS, "more characters"),
    )
    return _Section("configuration", "Configuration", joined([overview, whole]))


def _settings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yields what is set below a name: Keras's `class_name` and `config` are one."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield name, shortened(_text(value), _VALUE_COLUMNS)
        return
    if "class_name" in value and name:
        yield name, str(value["class_name"])
    for key, item in value.items():
        if key not in _NO_SETTINGS:
            is_inner = key == "config" and "class_name" in value
            inner = name if is_inner else ".".join(filter(None, (name, str(key))))
            yield from _settings(item, inner)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _versions_section(config: Mapping[str, Any]) -> _Section:
    versions = config.get("versions", {})
    content = (
        table("What the run was computed with", ("part", "version"), versions.items())
        if versions
        else element("p", "The configuration names none.")
    )
    return _Section("versions", "Versions", element("div", content, class_="settings"))


# --- small things


def _figure(png: bytes, alt: str, kind: str | None = None) -> Html:
    width, height = Image.open(io.BytesIO(png)).size
    image = picture(png, "png", alt, width, height)
    inner = image if kind is None else element("div", image, class_=kind)
    return element("figure", inner, class_="plot")


def _sizes(datasets: ImageDatasets) -> dict[str, int]:
    return {name: len(getattr(datasets.split, name)) for name in SPLIT_NAMES}


def _split_name(evaluation: Evaluation) -> str:
    split = evaluation.split or "evaluated"
    return {"train": "training"}.get(split, split)


def _epochs(history: History) -> int:
    return max((len(values) for values in history.values()), default=0)


def _left_out(count: int, what: str) -> str | None:
    return f"{_count(count)} {what} are left out here." if count > 0 else None


def _note(count: int, what: str) -> Content:
    text = _left_out(count, what)
    return None if text is None else element("p", text, class_="note")


def _count(count: int) -> str:
    return f"{count:,}"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "—"
    return f"{value:.{digits}f}" if math.isfinite(value) else _not_finite(value)


def _significant(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else _not_finite(value)


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"


def _is_finite(values: Iterable[float]) -> bool:
    values = list(values)
    return bool(values) and math.isfinite(values[-1])


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return _not_finite(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
