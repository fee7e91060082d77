"""report.html, read back: what it shows, and that it is whole in every case."""

import base64
import dataclasses
import hashlib
import io
import json
import math
import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import draw_images, small_loader
from html_reading import read_html, table_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import keras_flowers
from keras_flowers import Evaluation, ImageClassifier, InputError, train, write_report
from keras_flowers.data.audit import Finding
from keras_flowers.evaluation.pages import page_environment
from keras_flowers.files import printable_path

pytestmark = pytest.mark.usefixtures("with_charts")

CONFIG = {
    "format": 1,
    "loader": {
        "module": "keras_flowers",
        "class_name": "ImageDatasetLoader",
        "config": {"data": "photos", "image_size": [8, 8], "cache_directory": None},
        "registered_name": "keras_flowers>ImageDatasetLoader",
    },
    "model": {
        "module": "keras_flowers",
        "class_name": "ImageClassifier",
        "registered_name": "keras_flowers>ImageClassifier",
        "config": {
            "hidden_units": [8],
            "dropout": 0.0,
            "augmentation": None,
            "backbone": None,
        },
    },
    "epochs": 2,
    "versions": {"python": "3.11.9", "keras": "3.15.1"},
}
HISTORY = {
    "epoch": [1.0, 2.0],
    "learning_rate": [0.001, 0.001],
    "seconds": [1.5, 2.25],
    "photos_per_second": [1000.0, 2000.0],
    "loss": [1.25, 1.0],
    "accuracy": [0.5, 0.625],
    "val_loss": [1.5, 1.125],
    "val_accuracy": [0.25, 0.75],
}
SECTIONS = [
    "Data",
    "Training",
    "Confusion matrix",
    "Classes",
    "Calibration",
    "Worst mistakes",
    "Configuration",
]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """24 images, 19 of them for training."""
    return small_loader(tmp_path_factory.mktemp("data")).load()


def evaluated(datasets, predictions):
    """An evaluation that predicts each validation image so with 0.75."""
    labels = datasets.labels("validation")
    rows = np.full((len(labels), 3), 0.125, np.float32)
    rows[np.arange(len(labels)), predictions] = 0.75
    paths = datasets.paths("validation")
    return Evaluation(
        datasets.class_names, paths, labels, rows, datasets.audit.root, "validation"
    )


def report(folder, datasets, evaluation, *, config=CONFIG, history=HISTORY, **options):
    """Writes a report and returns it, read."""
    path = folder / "report.html"
    write_report(
        path,
        config=config,
        datasets=datasets,
        history=history,
        evaluation=evaluation,
        **options,
    )
    text = path.read_text(encoding="utf-8")
    root = read_html(text)
    assert_whole(root)
    return root


def assert_whole(root):
    """Nothing from elsewhere, nothing that runs, and a structure to be read aloud."""
    assert not [*root.all("script", "iframe", "object", "base", "form")]
    for chart in root.all("svg"):
        assert chart.attributes["aria-label"]
        for item in chart.all("use"):
            assert item.attributes["href"].startswith("#")
    for item in root.all("img", "a", "link"):
        address = item.attributes.get("src") or item.attributes["href"]
        assert address.startswith(("data:", "#")), address[:80]
    for item in walk(root):
        assert not [name for name in item.attributes if name.startswith("on")]
        assert "style" not in item.attributes  # which the policy would refuse
    assert all(image.attributes["alt"] for image in root.all("img"))
    assert len([*root.all("h1")]) == 1
    assert all(head.attributes.get("scope") for head in root.all("th"))
    ids = [item.attributes["id"] for item in walk(root) if "id" in item.attributes]
    assert len(ids) == len(set(ids))
    anchors = {link.attributes["href"] for link in root.one("nav").all("a")}
    assert anchors <= {f"#{name}" for name in ids}
    style = root.one("style").text
    assert "url(" not in style
    assert "@import" not in style


def walk(root):
    for item in root.content:
        if not isinstance(item, str):
            yield item
            yield from walk(item)


def headings(root):
    return [heading.text for heading in root.all("h2")]


def figures(root):
    """The headline figures: value and hint by name."""
    found = {}
    for item in root.one("dl").all("div"):
        name, *values = (part.text for part in item.all("dt", "dd"))
        found[name] = values
    return found


def test_a_report_shows_the_run(tmp_path, datasets):
    labels = datasets.labels("validation")
    predictions = labels.copy()
    predictions[0] = 1
    result = evaluated(datasets, predictions)
    (tmp_path / "first").mkdir()
    root = report(tmp_path / "first", datasets, result)
    assert root.one("title").text == root.one("h1").text == "Training run first"
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d", root.one("time").text)
    assert headings(root) == SECTIONS
    shown = figures(root)
    total = len(labels)
    share = result.accuracy
    assert shown["Accuracy, validation"][0] == f"{share:.3f}"
    assert f"{total - 1} of {total} right" in shown["Accuracy, validation"][1]
    assert shown["Loss, validation"][0] == f"{result.loss:.3f}"
    error = result.calibration().error
    assert shown["Expected calibration error"][0] == f"{error:.3f}"
    assert shown["Epochs"] == ["2", "best validation accuracy 0.750"]
    assert shown["Training time"] == ["3.8 s", "2,000 images/s"]
    assert shown["Images"] == ["24", "19 train, 5 validation"]
    assert shown["Classes"] == ["3"]


def test_the_tables_hold_the_numbers_of_the_run(tmp_path, datasets):
    labels = datasets.labels("validation")
    result = evaluated(datasets, np.zeros_like(labels))  # all are predicted as daisy
    root = report(tmp_path, datasets, result)
    counts = [datasets.counts(split) for split in ("train", "validation")]
    assert table_of(root, "Images of each class and split") == [
        ["class", "train", "validation"],
        *([n, str(counts[0][n]), str(counts[1][n])] for n in datasets.class_names),
        ["all classes", "19", "5"],
    ]
    assert table_of(root, "One row per epoch") == [
        [name.replace("_", " ") for name in HISTORY],
        ["1", "0.001", "1.5", "1000", "1.25", "0.5", "1.5", "0.25"],
        ["2", "0.001", "2.25", "2000", "1", "0.625", "1.125", "0.75"],
    ]
    daisies, *others = (str(counts[1][name]) for name in datasets.class_names)
    assert table_of(root, "Images by true and predicted class") == [
        ["true \\ predicted", "daisy", "roses", "tulips"],
        ["daisy", daisies, "0", "0"],
        ["roses", others[0], "0", "0"],
        ["tulips", others[1], "0", "0"],
    ]
    frequent = table_of(root, "The most frequent confusions")
    assert sorted(frequent[1:]) == [
        ["roses", "daisy", others[0]],
        ["tulips", "daisy", others[1]],
    ]
    daisy = result.per_class["daisy"]
    assert table_of(root, "Scores of each class")[1:] == [
        ["daisy", f"{daisy.precision:.3f}", "1.000", f"{daisy.f1:.3f}", daisies],
        ["roses", "0.000", "0.000", "0.000", others[0]],
        ["tulips", "0.000", "0.000", "0.000", others[1]],
    ]
    bins = table_of(root, "Bins of the 5 images")
    assert len(bins) == 16
    filled = [row for row in bins[1:] if row[1] != "0"]
    assert filled == [["0.733 to 0.800", "5", "0.750", f"{result.accuracy:.3f}"]]
    assert table_of(root, "Data")[1:] == [["data", "photos"], ["image size", "8"]]
    assert table_of(root, "Model")[1:] == [["hidden units", "8"]]
    assert ["dropout", "0"] in table_of(root, "Model, defaults")
    assert table_of(root, "Training")[1:] == [["epochs", "2"]]
    assert json.loads(root.one("pre").text) == CONFIG
    environment = table_of(root, "Environment, defaults")
    assert environment[1:3] == [["python", "3.11.9"], ["keras", "3.15.1"]]
    folded = [*root.one("section", id="configuration").all("details")]
    captions = [t.text for one in folded for t in one.all("caption")]
    assert {"Data", "Model", "Training"}.isdisjoint(captions)
    assert {"Model, defaults", "Environment, defaults"} <= set(captions)


def test_the_model_and_the_time_of_the_whole_run(tmp_path, datasets):
    model = small(datasets)
    (tmp_path / "model.keras").write_bytes(bytes(1_250_000))
    root = report(tmp_path, datasets, "None.", model=model, seconds=29.0)
    shown = figures(root)
    assert shown["Time of the run"] == ["29.0 s", "training 3.8 s, 2,000 images/s"]
    count = f"{model.count_params():,}"
    layers = len(model.layers)
    assert shown["Parameters"] == [count, f"{layers} layers, model.keras 1.2 MB"]
    assert table_of(root, "Layers of the model")[1:] == [
        [layer.name, type(layer).__name__, f"{layer.count_params():,}"]
        for layer in model.layers
    ]


def test_the_worst_mistakes_are_shown_with_their_images(tmp_path, datasets):
    labels = datasets.labels("validation")
    result = evaluated(datasets, (labels + 1) % 3)
    root = report(tmp_path, datasets, result)
    items = [*root.one("section", id="mistakes").all("li")]
    assert len(items) == len(labels)
    for item, mistake in zip(items, result.worst_mistakes(), strict=True):
        path = mistake.path.relative_to(datasets.audit.root).as_posix()
        caption = item.one("figcaption")
        assert caption.one("span").text == path
        called = (
            f"{mistake.true_class} predicted as {mistake.predicted_class} with 0.750"
        )
        assert called in caption.text
        assert path in item.one("img").attributes["alt"]
        assert item.one("img").attributes["src"].startswith("data:image/jpeg;base64,")
        assert item.one("img").attributes["width"] == "16"


def test_no_mistake_is_said(tmp_path, datasets):
    root = report(
        tmp_path, datasets, evaluated(datasets, datasets.labels("validation"))
    )
    assert "None: all 5 images are right." in root.one("section", id="mistakes").text
    assert "No class is taken for another." in root.text


def test_an_image_that_is_gone_is_said(tmp_path, datasets):
    labels = datasets.labels("validation")
    result = evaluated(datasets, (labels + 1) % 3)
    paths = tuple(tmp_path / f"{i}.png" for i in range(len(labels)))
    root = report(tmp_path, datasets, dataclasses.replace(result, paths=paths))
    mistakes = root.one("section", id="mistakes")
    assert not [*mistakes.all("img")]
    assert mistakes.text.count("cannot be read") == len(labels)


def test_without_an_evaluation_the_reason_is_there(tmp_path, datasets):
    root = report(tmp_path, datasets, "There is no <validation> split.")
    assert headings(root) == [
        "Data",
        "Training",
        "Evaluation",
        "Configuration",
    ]
    section = root.one("section", id="evaluation")
    assert "There is no <validation> split." in section.text
    assert "Expected calibration error" not in figures(root)


@pytest.mark.parametrize("history", [{}, {"epoch": [], "loss": []}])
def test_without_an_epoch(tmp_path, datasets, history):
    result = evaluated(datasets, datasets.labels("validation"))
    root = report(tmp_path, datasets, result, history=history)
    assert "No epoch was completed." in root.one("section", id="training").text
    assert figures(root)["Epochs"] == ["0"]
    assert "Training time" not in figures(root)


def test_a_run_that_collapsed(tmp_path, datasets):
    history = {"epoch": [1, 2, 3], "loss": [9.0, 1.1, 1.1]}
    one = evaluated(datasets, np.zeros(5, int))
    several = evaluated(datasets, datasets.labels("validation"))
    marked = {**history, "collapsed": [math.nan, 1, 1]}
    text = report(tmp_path, datasets, one, history=marked).text
    assert "The network collapsed: since epoch 2" in text
    assert "weights are those of an earlier epoch" not in text
    # Early stopping has restored the weights of an epoch before.
    text = report(tmp_path, datasets, several, history=marked).text
    assert "The saved weights are those of an earlier epoch." in text
    for healthy in (history, {**history, "collapsed": [math.nan, 1, 0]}):
        assert "collapsed:" not in report(tmp_path, datasets, one, history=healthy).text


def test_a_run_that_diverged(tmp_path, datasets):
    result = evaluated(datasets, datasets.labels("validation"))
    result.probabilities[:2] = math.nan
    history = HISTORY | {
        "loss": [math.nan, math.inf],
        "val_loss": [-math.inf, math.nan],
        "val_accuracy": [math.nan, math.nan],
        "photos_per_second": [math.nan, math.nan],
    }
    root = report(tmp_path, datasets, result, history=history)
    warning = root.one("p", **{"class": "warning"}).text
    assert (
        "For 2 of 5 images the model returned non-finite probabilities (NaN)" in warning
    )
    assert figures(root)["Loss, validation"][0] == "NaN"
    assert figures(root)["Expected calibration error"][0] == "NaN"
    rows = table_of(root, "One row per epoch")
    assert [row[4] for row in rows[1:]] == ["NaN", "∞"]
    assert [row[6] for row in rows[1:]] == ["-∞", "NaN"]
    items = [*root.one("section", id="mistakes").all("li")]
    assert len(items) == 2
    assert "non-finite prediction (NaN)" in items[0].text


def test_a_sound_run_has_no_warning(tmp_path, datasets):
    root = report(tmp_path, datasets, evaluated(datasets, [0] * 5))
    assert not [p for p in root.all("p") if p.attributes.get("class") == "warning"]


def test_names_are_text(tmp_path):
    names = ("<b>bold", "\"q\" & 'p'", os.fsdecode(b"two\nlines \xff"))
    draw_images(tmp_path / "photos", {"daisy": 5, "roses": 5, "tulips": 5})
    for old, new in zip(("daisy", "roses", "tulips"), names, strict=True):
        (tmp_path / "photos" / old).rename(tmp_path / "photos" / new)
    (tmp_path / "photos" / names[0] / "<script>alert(1)<").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "photos" / names[0] / "000.png").rename(
        tmp_path / "photos" / names[0] / "<img src=x onerror=alert(1)>.png"
    )
    datasets = small_loader(tmp_path).load()
    labels = datasets.labels("validation")
    config = CONFIG | {"<script>": "</pre><script>", "data": names[2]}
    (tmp_path / "<script>").mkdir()
    result = evaluated(datasets, (labels + 1) % 3)
    paths = tuple(datasets.audit.root / n / "<x> & \udcff.png" for n in names)
    result = dataclasses.replace(result, paths=paths)
    root = report(tmp_path / "<script>", datasets, result, config=config)
    shown = [n.replace("\n", "\\n").replace("\udcff", "\\udcff") for n in names]
    rows = table_of(root, "Images of each class and split")
    assert {row[0] for row in rows} == {*shown, "class", "all classes"}
    assert root.one("title").text == "Training run <script>"
    assert "<script>alert(1)<: truncated or corrupt" in root.text
    assert "<x> & \\udcff.png" in root.text
    assert json.loads(root.one("pre").text) == config


HOSTILE = (
    "<script>alert(1)</script>",
    "</p><img src=x onerror=alert(1)>",
    "\"quoted\" & 'single' &amp;",
    "</style><!-- ]]>",
)
ANY_TEXT = st.text() | st.text(alphabet="<>&\"'/=-! \n\0\udcff")


def rendered(text):
    """A text in an element and in an attribute, as the template renders them."""
    source = '<p title="{{ text }}">{{ text }}</p>{{ text }}'
    markup = page_environment().from_string(source).render(text=text)
    markup.encode("utf-8")
    return read_html(markup).content


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_no_markup(text):
    paragraph, rest = rendered(text)
    assert paragraph.text == rest == text
    assert paragraph.attributes == {"title": text}


@given(ANY_TEXT)
def test_any_text_is_read_back_on_one_line(text):
    paragraph, *rest = rendered(text)
    shown = printable_path(text)
    assert paragraph.text == "".join(rest) == shown
    assert paragraph.attributes["title"] == shown


def test_a_page_allows_its_own_style_alone(tmp_path, datasets):
    root = report(tmp_path, datasets, "No evaluation.")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    assert root.one("html").attributes == {"lang": "en"}
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(
        re.fullmatch(r"(\S+) (.*)", rule.strip()).groups()
        for rule in policy.attributes["content"].split(";")
    )
    style = root.one("style").text.encode()
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_a_table_names_its_rows_and_columns(tmp_path, datasets):
    root = report(tmp_path, datasets, evaluated(datasets, [0] * 5))
    for table in root.all("table"):
        head, *rows = table.all("tr")
        assert {cell.attributes["scope"] for cell in head.all("th", "td")} == {"col"}
        for row in rows:
            first, *others = row.all("th", "td")
            assert (first.tag, first.attributes["scope"]) == ("th", "row")
            assert {cell.tag for cell in others} <= {"td"}


def test_pictures_stand_in_the_page_with_their_size(tmp_path, datasets):
    root = report(tmp_path, datasets, evaluated(datasets, [0] * 5))
    for image in root.all("img"):
        content = image.attributes["src"].partition(";base64,")[2]
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            size = tuple(map(str, picture.size))
        assert size == (image.attributes["width"], image.attributes["height"])


def test_long_lists_are_cut_and_say_so(tmp_path, datasets):
    size = 150
    names = tuple(f"class {i}" for i in range(size))
    rows = np.roll(np.eye(size, dtype=np.float32), 1, axis=1)
    paths = (datasets.paths("validation")[0],) * size
    labels = np.arange(size, dtype=np.int32)
    result = Evaluation(names, paths, labels, rows)
    found = tuple(Finding("duplicate", ("a",), f"copy {i}") for i in range(35))
    audit = dataclasses.replace(datasets.audit, findings=found)
    many = dataclasses.replace(datasets, audit=audit)
    epochs = [float(i + 1) for i in range(1000)]
    history = {"epoch": epochs, **{f"metric_{i}": epochs for i in range(30)}}
    config = {f"setting {i}": "x" * 1000 for i in range(300)}
    root = report(tmp_path, many, result, config=config, history=history)
    text = root.text
    for line in (
        "50 more classes are left out here.",
        "140 more confusions are left out here.",
        "25 more are left out here.",
        "800 earlier epochs are left out here. 15 more columns are left out here.",
        "more characters are left out here.",
        "24 of the 150 images whose predicted class is wrong",
    ):
        assert line in text, line
    assert "true \\ predicted" not in text  # the matrix is a drawing
    assert "Confusion matrix of 150 classes" in [
        image.attributes["alt"].partition(";")[0] for image in root.all("img")
    ]
    assert len(table_of(root, "One row per epoch")) == 201
    assert table_of(root, "One row per epoch")[1][0] == "801"
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_a_report_is_replaced_whole(tmp_path, datasets):
    (tmp_path / "report.html").write_text("old")
    report(tmp_path, datasets, "No evaluation.")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="cannot be written"):
        report(tmp_path / "missing", datasets, "No evaluation.")


# --- of a whole run


def small(datasets):
    return ImageClassifier(
        datasets.class_names, datasets.image_size, hidden_units=(8,), seed=1
    )


def test_a_run_leaves_its_report(tmp_path):
    run = train(
        small_loader(tmp_path),
        small,
        epochs=2,
        run_directory=tmp_path / "first",
        verbose=0,
    )
    root = read_html((tmp_path / "first" / "report.html").read_text())
    assert_whole(root)
    assert headings(root) == [*SECTIONS[:-1], "Model", "Configuration"]
    training = sum(run.history["seconds"])
    value, unit = figures(root)["Time of the run"][0].split()
    assert unit == "s"
    assert float(value) >= training - 0.1
    result = keras_flowers.evaluate(run.model, run.datasets)
    assert figures(root)["Accuracy, validation"][0] == f"{result.accuracy:.3f}"
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert json.loads(root.one("pre").text) == config


def test_a_run_without_validation_leaves_a_report(tmp_path):
    loader = small_loader(tmp_path, validation_split=0.0)
    train(loader, small, epochs=1, run_directory=tmp_path / "run", verbose=0)
    root = read_html((tmp_path / "run" / "report.html").read_text())
    assert "There is no validation split." in root.text


def test_a_model_without_a_softmax_is_trained_and_reported(tmp_path):
    def build(datasets):
        layers = keras.layers
        model = keras.Sequential(
            [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        return model

    run = train(
        small_loader(tmp_path),
        build,
        epochs=1,
        run_directory=tmp_path / "run",
        verbose=0,
    )
    assert Path(run.directory, "model.keras").exists()
    root = read_html((tmp_path / "run" / "report.html").read_text())
    assert "The model could not be evaluated." in root.text
