"""report.html of a run just trained, opened from the disk in a real browser."""

import os
import re

import pytest
from browser import console_errors, find_all, open_page, page_text, require_browser
from image_drawing import draw_data_set
from loopback_server import serving

import keras_flowers
from keras_flowers import ImageClassifier, ImageDatasetLoader

pytestmark = pytest.mark.usefixtures("with_charts")

# Markup, quotes, control characters, bytes that are no text.
HOSTILE = "<img src=x onerror=document.title=1>"
NAMES = (HOSTILE, "\"quoted\" & 'single' $x$", os.fsdecode(b"two\nlines \xff"))
SHOWN = (HOSTILE, NAMES[1], "two\\nlines \\udcff")
EPOCHS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    require_browser()
    folder = tmp_path_factory.mktemp("report")
    images = draw_data_set(folder / "photos", dict.fromkeys(NAMES, 10))
    loader = ImageDatasetLoader(
        images, image_size=(8, 8), batch_size=4, cache_directory=folder / "cache"
    )

    def build(datasets):
        return ImageClassifier(datasets.class_names, (8, 8), hidden_units=(8,), seed=1)

    return keras_flowers.train(
        loader, build, epochs=EPOCHS, run_directory=folder / "a <run>", verbose=0
    )


@pytest.fixture(scope="module")
def driver(run, tmp_path_factory):
    url = (run.directory / "report.html").as_uri()
    with open_page(url, tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def table(driver, caption):
    """The rows of a table as lists of texts, also where it is folded."""
    return driver.execute_script(
        """
        const table = [...document.querySelectorAll("table")].find(
          table => table.caption.textContent === arguments[0]);
        return [...table.rows].map(row => [...row.cells].map(c => c.textContent));
        """,
        caption,
    )


def test_the_title_and_the_sections(driver):
    assert driver.title == "Training run a <run>"
    assert [one.text for one in find_all(driver, "h1")] == ["Training run a <run>"]
    assert [one.text for one in find_all(driver, "h2")] == [
        "Data",
        "Training",
        "Confusion matrix",
        "Classes",
        "Calibration",
        "Worst mistakes",
        "Model",
        "Configuration",
    ]


def test_the_tables_are_filled_with_the_numbers_of_the_run(driver, run):
    counts = [run.datasets.counts(split) for split in ("train", "validation")]
    shown = dict(zip(NAMES, SHOWN, strict=True))
    data = table(driver, "Images of each class and split")
    assert data[1:-1] == [
        [shown[name], *(str(count[name]) for count in counts)]
        for name in run.datasets.class_names
    ]
    epochs = table(driver, "One row per epoch")
    assert len(epochs) == EPOCHS + 1
    column = epochs[0].index("val loss")
    assert [row[column] for row in epochs[1:]] == [
        f"{value:.4g}" for value in run.history["val_loss"]
    ]
    evaluation = keras_flowers.evaluate(run.model, run.datasets)
    matrix = table(driver, "Images by true and predicted class")
    assert [row[1:] for row in matrix[1:]] == [
        [str(count) for count in row] for row in evaluation.confusion_matrix.tolist()
    ]
    scores = table(driver, "Scores of each class")
    assert [row[3] for row in scores[1:]] == [
        f"{one.f1:.3f}" for one in evaluation.per_class.values()
    ]
    figures = [one.text for one in find_all(driver, "dd.value")]
    assert figures[:2] == [f"{evaluation.accuracy:.3f}", f"{evaluation.loss:.3f}"]
    versions = dict(table(driver, "Environment, defaults"))
    assert versions["keras-flowers"] == keras_flowers.__version__
    assert ["hidden units", "8"] in table(driver, "Model")
    assert dict(table(driver, "Model, defaults"))["dropout"] == "0"


def test_every_picture_is_there(driver, run):
    sizes = driver.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.naturalHeight, "
        "i.complete, i.width])"
    )
    mistakes = keras_flowers.evaluate(run.model, run.datasets).mistakes
    assert len(sizes) == min(mistakes, 24)
    for width, height, is_complete, shown in sizes:
        assert is_complete
        assert min(width, height, shown) > 0
    charts = driver.execute_script(
        "return [...document.querySelectorAll('svg')].map(chart => ["
        "chart.getAttribute('aria-label').split(/[ ;]/)[1],"
        "chart.getBoundingClientRect().height, chart.querySelectorAll('path').length])"
    )
    assert [name for name, *_ in charts] == ["loss", "accuracy", "diagram"]
    for _, height, paths in charts:
        assert height > 100
        assert paths > 10


def test_names_are_shown_as_text(driver):
    text = page_text(driver)
    for name in SHOWN:
        assert name in text
    assert not find_all(driver, "img[src='x'], script")
    assert driver.title != "1"


def test_the_page_asks_for_nothing_and_complains_of_nothing(driver):
    loaded = "return performance.getEntriesByType('resource').map(one => one.name)"
    assert driver.execute_script(loaded) == []
    assert console_errors(driver) == []


def test_the_style_of_the_page_applies(driver):
    style = (
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    )
    assert driver.execute_script(style, ".figures", "display") == "flex"
    assert driver.execute_script(style, "td", "textAlign") == "right"


def test_the_policy_of_the_page_refuses_what_is_elsewhere(run, tmp_path):
    """Were a name to become markup, the page could still load and run nothing."""
    url = (run.directory / "report.html").as_uri()
    with serving() as site, open_page(url, tmp_path) as driver:
        refused = driver.execute_async_script(
            """
            const [address, done] = arguments;
            const refused = [];
            document.addEventListener("securitypolicyviolation", event => {
              refused.push(event.effectiveDirective);
              if (refused.length === 3) done(refused.sort());
            });
            const image = document.createElement("img");
            image.src = address;
            const style = document.createElement("style");
            style.textContent = "p { color: red }";
            const button = document.createElement("button");
            button.setAttribute("onclick", "document.title = 1");
            document.body.append(image, style, button);
            button.click();
            """,
            f"{site.address}/x.png",
        )
        assert refused == ["img-src", "script-src-attr", "style-src-elem"]
        assert driver.title == "Training run a <run>"
        assert not site.requests


@pytest.mark.parametrize("width", [360, 500, 768, 1400])
def test_the_page_fits_the_window_and_nothing_is_cut(driver, width):
    size = {
        "width": width,
        "height": 900,
        "deviceScaleFactor": 1,
        "mobile": width < 500,
    }
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        widths = driver.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert widths[0] <= widths[1] <= width
        wide = driver.execute_script(
            "return [...document.querySelectorAll('svg, img, .scroll')]"
            ".filter(one => one.scrollWidth > one.clientWidth + 1 ||"
            " one.getBoundingClientRect().right > window.innerWidth)"
            ".map(one => one.getAttribute('aria-label'))"
        )
        # The names of this run are long: no table of five short ones is cut.
        assert set(wide) <= {"Images by true and predicted class", "One row per epoch"}
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_follow_the_theme(driver, theme):
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    colours = driver.execute_script(
        """
        const colour = (one, key) => getComputedStyle(one)[key];
        const text = [...document.querySelectorAll("svg text")];
        return [
          colour(document.body, "color"),
          colour(document.querySelector("section"), "backgroundColor"),
          ...new Set(text.map(one => colour(one, "fill"))),
          colour(document.querySelector(".ground-stroke"), "stroke"),
        ]
        """
    )
    ink, ground, *shown, separators = colours
    assert shown == [ink]
    assert separators == ground
    is_dark = sum(map(int, re.findall(r"\d+", ground)[:3])) < 3 * 128
    assert is_dark == (theme == "dark")
