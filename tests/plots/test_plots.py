"""What evaluation draws: the confusion matrix and the sheet of mistakes."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_flowers import Evaluation, InputError
from keras_flowers.plots.text import drawn_name, name_style, png_bytes, shortened

ODD_NAMES = (
    "$a^$",
    "$\\frac{",
    os.fsdecode(b"caf\xe9"),
    "two\nlines\x1b[31m",
    "雏菊🌼",
    "n" * 255,
)


def evaluation(labels, predictions, names=("a", "b", "c"), paths=None):
    """An evaluation in which each photo is called so with a probability of 0.75."""
    rows = np.full((len(labels), len(names)), 0.25 / (len(names) - 1), np.float32)
    rows[np.arange(len(labels)), predictions] = 0.75
    paths = paths or tuple(Path(f"{i}.jpg") for i in range(len(labels)))
    return Evaluation(names, paths, np.array(labels, dtype=np.int32), rows)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_name_that_fits_stays_as_it_is():
    assert shortened("daisy/1.jpg", 11) == "daisy/1.jpg"
    assert shortened("daisy/123456789.jpg", 11) == "dais…89.jpg"


@given(st.text(), st.integers(1, 40))
def test_a_shortened_name_keeps_both_ends_within_the_width(text, columns):
    short = shortened(text, columns)
    if short != text:
        beginning, _, end = short.partition("…")
        assert text.startswith(beginning)
        assert text.endswith(end)
    if text.isascii():
        assert len(short) <= columns
        assert (short == text) == (len(text) <= columns)


def test_wide_characters_take_two_columns():
    assert shortened("雏菊", 4) == "雏菊"
    assert shortened("雏菊雏菊", 4) == "…菊"


def test_what_cannot_be_drawn_is_shown_as_an_escape():
    assert drawn_name("two\nlines", 80) == "two\\nlines"
    assert drawn_name("caf\udce9", 80) == "caf\\udce9"
    assert drawn_name("Gänseblümchen", 80) == "Gänseblümchen"
    assert drawn_name("\U0001f33c", 80, "monospace") == "\\U0001f33c"


@pytest.mark.parametrize("count", [2, 26, 61, 501, 1001])
def test_the_confusion_matrix_of_any_size_is_drawn_in_bounds(count, tmp_path):
    labels = np.arange(count)
    names = tuple(f"class {i}" for i in labels)
    figure = evaluation(labels, labels[::-1], names).plot_confusion_matrix()
    axes = figure.axes[0]
    assert bool(axes.texts) == (count <= 25)
    named = [text.get_text() for text in axes.get_yticklabels()] == list(names)
    assert named == (count <= 60)
    cells = axes.images[0].get_array()
    assert max(cells.shape) <= 500
    # Antidiagonal, whatever the size of a cell.
    corner = cells[0, -1]
    assert corner > 0
    assert cells[0, 0] == 0
    assert ("a cell stands for" in axes.get_title()) == (count > 500)
    assert max(figure.get_size_inches()) < 20
    (tmp_path / "matrix.png").write_bytes(png_bytes(figure, dpi=40))


def test_neighbouring_classes_share_a_cell():
    count = 1000  # two classes by two in a cell
    labels = np.arange(count)
    predictions = labels.copy()
    predictions[:4] = [0, 3, 2, 999]
    names = tuple(map(str, labels))
    figure = evaluation(labels, predictions, names).plot_confusion_matrix()
    cells = figure.axes[0].images[0].get_array()
    assert cells.shape == (500, 500)
    assert cells[0, :3].tolist() == [0.5, 0.5, 0]
    assert cells[1, [0, 1, -1]].tolist() == [0, 0.5, 0.5]
    assert cells[2:].diagonal(2).tolist() == [1] * 498


def test_images_without_an_answer_are_in_no_column():
    result = evaluation([0, 0, 1], [0, 0, 1])
    result.probabilities[1] = np.nan
    figure = result.plot_confusion_matrix()
    axes = figure.axes[0]
    assert texts(figure) == list("100010000")
    assert axes.images[0].get_array()[0].tolist() == [0.5, 0, 0]
    assert "1 photos without probabilities" in axes.get_title()


def test_any_class_name_can_be_drawn():
    names = ODD_NAMES
    result = evaluation(range(len(names)), [0] * len(names), names)
    figure = result.plot_confusion_matrix()
    png_bytes(figure, dpi=60)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown[:4] == ["$a^$", "$\\frac{", "caf\\udce9", "two\\nlines\\x1b[31m"]
    assert max(map(len, shown)) == 24
    assert not name_style()["parse_math"]


# --- the sheet of mistakes


def draw(path, colour, size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def test_the_sheet_shows_the_mistakes_from_the_files(tmp_path):
    paths = (
        draw(tmp_path / "a" / "0.png", "red"),
        draw(tmp_path / "a" / "1.png", "green"),
        draw(tmp_path / "b" / "2.png", "blue", size=(30, 60)),
    )
    result = evaluation([0, 0, 1], [0, 1, 2], paths=paths)
    result.probabilities[2] = [0.1, 0.05, 0.85]
    result = dataclasses.replace(result, root=tmp_path)
    figure = result.plot_mistakes()
    assert texts(figure) == [
        "2 of 2 mistakes, highest loss first",
        "b/2.png",
        "true: b",
        "predicted: c (0.850)",
        "a/1.png",
        "true: a",
        "predicted: b (0.750)",
    ]
    first, second = figure.axes[0].images
    assert first.get_array().shape == (60, 30, 3)
    assert tuple(first.get_array()[0, 0]) == (0, 0, 255)
    assert second.get_array().shape == (30, 40, 3)
    left, right, bottom, top = first.get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(2)
    png_bytes(figure)


def test_the_sheet_turns_images_as_training_does(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = draw(tmp_path / "0.jpg", "red", size=(40, 20), exif=exif)
    figure = evaluation([0], [1], paths=(path,)).plot_mistakes()
    assert figure.axes[0].images[0].get_array().shape == (40, 20, 3)


def test_the_sheet_keeps_thumbnails_only(tmp_path):
    path = draw(tmp_path / "0.jpg", "red", size=(2000, 1000))
    figure = evaluation([0], [1], paths=(path,)).plot_mistakes()
    assert figure.axes[0].images[0].get_array().shape == (120, 240, 3)


def test_a_file_that_is_gone_leaves_a_note(tmp_path):
    figure = evaluation([0], [1], paths=(tmp_path / "gone.jpg",)).plot_mistakes()
    assert "cannot be read" in texts(figure)
    assert not figure.axes[0].images
    png_bytes(figure)


def test_no_mistake_says_so():
    figure = evaluation([0, 1], [0, 1]).plot_mistakes()
    assert texts(figure) == ["no mistake in 2 photos"]
    png_bytes(figure)


def test_a_mistake_without_probabilities_is_named(tmp_path):
    result = evaluation([0], [0], paths=(draw(tmp_path / "0.png", "red"),))
    result.probabilities[:] = np.nan
    assert "predicted: none (nan)" in texts(result.plot_mistakes())


def test_any_name_stands_below_its_image(tmp_path):
    paths = tuple(draw(tmp_path / n[:80] / "0.png", "red") for n in ODD_NAMES[:-1])
    long = draw(tmp_path / ("x" * 100) / ("n" * 200 + "-end.png"), "red")
    result = evaluation(range(6), [1, 2, 3, 4, 5, 0], ODD_NAMES, (*paths, long))
    result = dataclasses.replace(result, root=tmp_path)
    figure = result.plot_mistakes()
    png_bytes(figure)
    shown = texts(figure)
    assert "two\\nlines\\x1b[31m/0.png" in shown
    assert "$a^$/0.png" in shown
    assert "true: $\\frac{" in shown
    assert any(t.startswith("predicted: …n") and t.endswith("n (0.750)") for t in shown)
    assert max(map(len, shown[1:])) <= 32
    assert any(text.endswith("-end.png") and "…" in text for text in shown)


@pytest.mark.parametrize("count", [0, -1, 2.5, 1001])
def test_a_sheet_of_no_or_too_many_images(count):
    with pytest.raises(InputError, match="count"):
        evaluation([0], [1]).plot_mistakes(count)


def test_a_sheet_of_many_rows(tmp_path):
    path = draw(tmp_path / "0.png", "red")
    result = evaluation([0] * 20, [1] * 20, paths=(path,) * 20)
    figure = result.plot_mistakes(13)
    assert len(figure.axes[0].images) == 13
    assert texts(figure)[0] == "13 of 20 mistakes, highest loss first"
    width, height = figure.get_size_inches()
    assert (width, round(height)) == (12, 7)
