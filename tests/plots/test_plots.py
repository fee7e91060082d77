"""What is drawn: names, the confusion matrix, grids of images."""

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from keras_flowers import Evaluation, InputError
from keras_flowers.evaluation.evaluate import arrange_confusion_matrix, load_mistakes
from keras_flowers.plots import text as plots_text
from keras_flowers.plots.confusion_matrix import (
    arrange_confusions,
    draw_confusion_matrix,
)
from keras_flowers.plots.image_grid import (
    Tile,
    draw_image_grid,
    draw_sprite,
    scale_to_pixels,
)
from keras_flowers.plots.rendering import png_bytes, show_in_figure
from keras_flowers.plots.text import fit_name, shorten, text_width

ODD_NAMES = (
    "$a^$",
    "$\\frac{",
    os.fsdecode(b"caf\xe9"),
    "two\nlines\x1b[31m",
    "雏菊🌼",
    "n" * 255,
)


def evaluation(labels, predictions, names=("a", "b", "c"), paths=None):
    """An evaluation that predicts each image so with a probability of 0.75."""
    rows = np.full((len(labels), len(names)), 0.25 / (len(names) - 1), np.float32)
    rows[np.arange(len(labels)), predictions] = 0.75
    paths = paths or tuple(Path(f"{i}.jpg") for i in range(len(labels)))
    return Evaluation(names, paths, np.array(labels, dtype=np.int32), rows)


def opened(png):
    return Image.open(io.BytesIO(png)).convert("RGB")


# --- names


def test_a_name_that_fits_stays_as_it_is():
    assert shorten("daisy/1.jpg", 11) == "daisy/1.jpg"
    assert shorten("daisy/123456789.jpg", 11) == "dais…89.jpg"


@given(st.text(), st.integers(1, 40))
def test_a_shortened_name_keeps_both_ends_within_the_width(text, columns):
    short = shorten(text, columns)
    if short != text:
        beginning, _, end = short.partition("…")
        assert text.startswith(beginning)
        assert text.endswith(end)
    if text.isascii():
        assert len(short) <= columns
        assert (short == text) == (len(text) <= columns)


def test_wide_characters_take_two_columns():
    assert shorten("雏菊", 4) == "雏菊"
    assert shorten("雏菊雏菊", 4) == "…菊"


def test_what_no_font_has_is_shown_as_an_escape():
    assert fit_name("two\nlines", 12, 500) == "two\\nlines"
    assert fit_name("caf\udce9", 12, 500) == "caf\\udce9"
    assert fit_name("\U0001f33c", 12, 500) == "\\U0001f33c"
    for name in ("Gänseblümchen", "Маргаритка", "Μαργαρίτα", "زهرة", "$a^$"):
        assert fit_name(name, 12, 500) == name


@given(st.text(), st.integers(20, 300))
def test_a_name_fits_into_its_pixels(name, width):
    assert text_width(fit_name(name, 12, width), 12) <= width


def test_a_font_of_the_system_draws_what_the_default_lacks(monkeypatch):
    """A second font takes over within a name, whatever it is."""
    monkeypatch.setattr(
        plots_text, "_find_families", lambda: ("DejaVu Sans", "STIXGeneral")
    )
    letter = "\U0001d504"  # Fraktur: of these two, only STIX has it
    assert plots_text._family_of(letter) == "STIXGeneral"
    name = f"a{letter}b"
    assert fit_name(name, 12, 500) == name
    runs = [(run, font.getname()[0]) for run, font in plots_text._split_runs(name, 12)]
    assert runs == [
        ("a", "DejaVu Sans"),
        (letter, "STIXGeneral"),
        ("b", "DejaVu Sans"),
    ]


# --- the confusion matrix


@pytest.mark.parametrize("count", [2, 25, 26, 60, 61, 501, 1001])
def test_the_confusion_matrix_of_any_size_is_drawn_in_bounds(count):
    labels = np.arange(count)
    names = tuple(f"class {i}" for i in labels)
    result = evaluation(labels, labels[::-1], names)
    grid = arrange_confusion_matrix(result)
    assert (grid.counts is not None) == (count <= 25)
    assert (grid.names == names) == (count <= 60)
    assert max(grid.shares.shape) <= 500
    # Antidiagonal, whatever the size of a cell.
    assert grid.shares[0, -1] > 0
    assert grid.shares[0, 0] == 0
    assert ("each cell covers" in " ".join(grid.title)) == (count > 500)
    assert max(draw_confusion_matrix(grid).size) < 1300
    figure = result.plot_confusion_matrix()
    assert max(figure.get_size_inches()) < 20
    assert min(opened(png_bytes(figure, dpi=40)).size) > 50


def test_neighbouring_classes_share_a_cell():
    count = 1000  # two classes by two in a cell
    labels = np.arange(count)
    predictions = labels.copy()
    predictions[:4] = [0, 3, 2, 999]
    names = tuple(map(str, labels))
    grid = arrange_confusion_matrix(evaluation(labels, predictions, names))
    cells = grid.shares
    assert cells.shape == (500, 500)
    assert cells[0, :3].tolist() == [0.5, 0.5, 0]
    assert cells[1, [0, 1, -1]].tolist() == [0, 0.5, 0.5]
    assert cells[2:].diagonal(2).tolist() == [1] * 498


def test_non_finite_predictions_are_in_no_column():
    result = evaluation([0, 0, 1], [0, 0, 1])
    result.probabilities[1] = np.nan
    grid = arrange_confusion_matrix(result)
    assert grid.counts == (("1", "0", "0"), ("0", "1", "0"), ("0", "0", "0"))
    assert grid.shares[0].tolist() == [0.5, 0, 0]
    assert "1 non-finite predictions (NaN)" in grid.title


def test_a_dense_matrix_is_arranged_as_a_sparse_one():
    labels, predictions = [0, 0, 1, 2], [0, 1, 1, 0]
    result = evaluation(labels, predictions)
    sparse = arrange_confusion_matrix(result)
    matrix = result.confusion_matrix.astype(np.float64)
    dense = arrange_confusions(matrix, result.class_names, sparse.title[0])
    assert dense.counts == sparse.counts
    np.testing.assert_array_equal(dense.shares, sparse.shares)


def test_the_shade_of_a_cell_is_the_fraction_of_its_true_class():
    matrix = np.array([[3, 1], [0, 0]])
    image = draw_confusion_matrix(arrange_confusions(matrix, ("a", "b")))
    light, dark = np.array([247, 251, 255]), np.array([8, 48, 107])
    for share, cells in ((0.75, 1), (0.25, 1), (0, 2)):
        colour = np.rint(light + share * (dark - light))
        pixels = (np.asarray(image) == colour).all(axis=2).sum()
        # Of 43 pixels on a side, without those of the number.
        assert 0.8 < pixels / (cells * 43**2) <= 1.1


def test_numbers_that_do_not_fit_are_left_out():
    few, many = (
        draw_confusion_matrix(arrange_confusions(np.full((25, 25), n), ["x"] * 25))
        for n in (1, 10**6)
    )
    cells = [
        np.unique(np.asarray(image)[200:300, 200:300], axis=0) for image in (few, many)
    ]
    assert len(np.unique(cells[0])) > len(np.unique(cells[1]))


def test_any_class_name_can_be_drawn():
    names = ODD_NAMES
    result = evaluation(range(len(names)), [0] * len(names), names)
    png_bytes(result.plot_confusion_matrix(), dpi=60)
    shown = [fit_name(name, 13, 170) for name in arrange_confusion_matrix(result).names]
    assert shown[:4] == ["$a^$", "$\\frac{", "caf\\udce9", "two\\nlines\\x1b[31m"]
    assert shown[5].startswith("nnn")
    assert "…" in shown[5]


def test_a_figure_keeps_the_pixels_of_the_drawing():
    grid = arrange_confusions(np.eye(3), ("a", "b", "c"), "title")
    for scale in (1, 2):
        image = draw_confusion_matrix(grid, scale=scale)
        png = opened(png_bytes(show_in_figure(image, scale), dpi=120 * scale))
        assert png.size == image.size
        difference = np.asarray(png, int) - np.asarray(image, int)
        assert np.abs(difference).max() <= 1
    assert np.array_equal(opened(png_bytes(image)), image)


# --- grids of images


def test_a_grid_holds_the_images_in_order():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    tiles = [Tile(np.full((8, 16, 3), c, np.uint8)) for c in colours]
    image = draw_image_grid(tiles, side=32)  # two in a row
    assert image.size == (3 * 6 + 2 * 32, 6 + 2 * (16 + 6))
    assert image.getpixel((6, 6)) == colours[0]
    assert image.getpixel((6 + 38 + 31, 6 + 15)) == colours[1]
    assert image.getpixel((6, 6 + 22)) == colours[2]
    assert image.getpixel((6 + 38, 6 + 22)) == (255, 255, 255)


def test_a_grid_of_nothing_has_its_title():
    image = np.asarray(draw_image_grid([], "none of 5 wrong"))
    assert image.min() < 100
    assert np.asarray(draw_image_grid([])).min() == 255


def test_a_grid_takes_any_caption():
    tiles = [Tile(np.zeros((4, 4, 1), np.uint8), (name, "x")) for name in ODD_NAMES]
    plain = [Tile(tile.image, ("", "")) for tile in tiles]
    image, blank = (np.asarray(draw_image_grid(t, "$x$")) for t in (tiles, plain))
    assert image.shape == blank.shape
    assert (image != blank).any()


def test_a_sprite_is_a_square_of_squares():
    images = [np.full((10, 20, 3), i * 20, np.uint8) for i in range(5)]
    sprite = draw_sprite(images, 20)
    assert sprite.size == (60, 60)
    assert sprite.getpixel((30, 30)) == (80, 80, 80)
    assert sprite.getpixel((30, 22)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 127.0, 255.0], [0, 127, 255]),
        ([-3.0, 0.0, 3.0], [0, 128, 255]),
        ([0.0, np.nan, 1.0], [0, 0, 255]),
    ],
)
def test_numbers_become_pixels(values, pixels):
    image = np.array(values, np.float32).reshape(1, 3, 1)
    assert scale_to_pixels(image).ravel().tolist() == pixels


# --- the worst mistakes


def draw(path, colour, size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def test_the_grid_shows_the_mistakes_from_the_files(tmp_path):
    paths = (
        draw(tmp_path / "a" / "0.png", "red"),
        draw(tmp_path / "a" / "1.png", "green"),
        draw(tmp_path / "b" / "2.png", "blue", size=(30, 60)),
    )
    result = evaluation([0, 0, 1], [0, 1, 2], paths=paths)
    result.probabilities[2] = [0.1, 0.05, 0.85]
    result = dataclasses.replace(result, root=tmp_path)
    first, second = load_mistakes(result, 24)
    assert first.caption == ("b/2.png", "true: b", "predicted: c (0.850)")
    assert second.caption == ("a/1.png", "true: a", "predicted: b (0.750)")
    assert first.image.shape == (60, 30, 3)
    assert tuple(first.image[0, 0]) == (0, 0, 255)
    assert second.image.shape == (30, 40, 3)
    image = np.asarray(opened(png_bytes(result.plot_mistakes())), int)
    blue = np.argwhere((image == (0, 0, 255)).all(axis=2))
    height, width = np.ptp(blue, axis=0) + 1
    assert height / width == pytest.approx(2)
    assert (image == (0, 128, 0)).all(axis=2).any()
    assert not (image == (255, 0, 0)).all(axis=2).any()  # which is right


def title_of(result, monkeypatch, *arguments):
    titles = []

    def noted(tiles, title, *others):
        titles.append((title, len(tiles)))
        return draw_image_grid(tiles, title, *others)

    monkeypatch.setattr("keras_flowers.evaluation.mistake_grid.draw_image_grid", noted)
    figure = result.plot_mistakes(*arguments)
    png_bytes(figure, dpi=30)
    return *titles, figure


def test_the_grid_turns_images_as_training_does(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = draw(tmp_path / "0.jpg", "red", size=(40, 20), exif=exif)
    (tile,) = load_mistakes(evaluation([0], [1], paths=(path,)), 1)
    assert tile.image.shape == (40, 20, 3)


def test_the_grid_keeps_thumbnails_only(tmp_path):
    path = draw(tmp_path / "0.jpg", "red", size=(2000, 1000))
    (tile,) = load_mistakes(evaluation([0], [1], paths=(path,)), 1)
    assert tile.image.shape == (120, 240, 3)


def test_a_file_that_is_gone_leaves_a_note(tmp_path):
    result = evaluation([0], [1], paths=(tmp_path / "gone.jpg",))
    (tile,) = load_mistakes(result, 1)
    assert tile.image is None
    image = np.asarray(opened(png_bytes(result.plot_mistakes())))
    # "cannot be read" in the middle of the place of the image.
    assert image[28:208, 60:200].min() < 200


def test_no_mistake_says_so(monkeypatch):
    titles, _ = title_of(evaluation([0, 1], [0, 1]), monkeypatch)
    assert titles == ("no mistake in 2 images", 0)


def test_a_mistake_without_probabilities_is_named(tmp_path):
    result = evaluation([0], [0], paths=(draw(tmp_path / "0.png", "red"),))
    result.probabilities[:] = np.nan
    (tile,) = load_mistakes(result, 1)
    assert tile.caption[-1] == "predicted: none (nan)"


def test_any_name_stands_below_its_image(tmp_path):
    paths = tuple(draw(tmp_path / n[:80] / "0.png", "red") for n in ODD_NAMES[:-1])
    long = draw(tmp_path / ("x" * 100) / ("n" * 200 + "-end.png"), "red")
    result = evaluation(range(6), [1, 2, 3, 4, 5, 0], ODD_NAMES, (*paths, long))
    result = dataclasses.replace(result, root=tmp_path)
    png_bytes(result.plot_mistakes())
    tiles = load_mistakes(result, 24)
    shown = [fit_name(line, 12, 240) for tile in tiles for line in tile.caption]
    assert "two\\nlines\\x1b[31m/0.png" in shown
    assert "$a^$/0.png" in shown
    assert "true: $\\frac{" in shown
    assert any(
        t.startswith("predicted:") and "…n" in t and t.endswith("n (0.750)")
        for t in shown
    )
    assert max(text_width(line, 12) for line in shown) <= 240
    assert any(text.endswith("-end.png") and "…" in text for text in shown)


@pytest.mark.parametrize("count", [0, -1, 2.5, 1001])
def test_a_grid_of_no_or_too_many_images(count):
    with pytest.raises(InputError, match="count"):
        evaluation([0], [1]).plot_mistakes(count)


def test_a_grid_of_many_rows(tmp_path, monkeypatch):
    path = draw(tmp_path / "0.png", "red")
    result = evaluation([0] * 20, [1] * 20, paths=(path,) * 20)
    titles, figure = title_of(result, monkeypatch, 13)
    assert titles == ("13 of 20 mistakes, highest loss first", 13)
    width, height = figure.get_size_inches()
    assert round(width) == 12  # six in a row, three rows
    assert height < width
