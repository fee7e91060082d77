import errno
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_flowers.data.sample import (
    SAMPLE_CLASS_NAMES,
    SAMPLE_VERSION,
    write_sample,
)
from keras_flowers.errors import InputError

Floats = npt.NDArray[np.floating]
SMALL = (48, 64)
TRAIN, TEST = 40, 15


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.jpg"))
    }


def write_small(directory: Path, images_per_class: int = 2, seed: int = 42) -> Path:
    return write_sample(
        directory, images_per_class=images_per_class, image_size=SMALL, seed=seed
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("photos") / "sample"
    yield write_sample(directory, images_per_class=TRAIN + TEST, image_size=(90, 120))


@pytest.fixture(scope="module")
def thumbnails(images: Path) -> Floats:
    """All photos [class, photo, 16, 16, 3], values 0 to 1."""
    rows = [
        [
            np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BOX))
            for path in sorted((images / name).iterdir())
        ]
        for name in SAMPLE_CLASS_NAMES
    ]
    return np.array(rows) / 255.0


def nearest_centroid_accuracy(features: Floats) -> float:
    """Features [class, photo, feature]: fitted on the first, tested on the last."""
    train, test = features[:, :TRAIN], features[:, TRAIN:]
    scale = train.std(axis=(0, 1))
    centroids = train.mean(axis=1) / scale
    distances = np.linalg.norm(test[:, :, None] / scale - centroids, axis=-1)
    truth = np.arange(len(features))[:, None]
    return float((distances.argmin(axis=-1) == truth).mean())


def linear_accuracy(features: Floats, ridge: float = 10.0) -> float:
    """Ridge regression onto the classes, fitted and tested as above."""
    classes, size = len(features), features.shape[-1]
    train = features[:, :TRAIN].reshape(-1, size)
    test = features[:, TRAIN:].reshape(-1, size)
    mean = train.mean(axis=0)
    train, test = train - mean, test - mean
    targets = np.repeat(np.eye(classes), TRAIN, axis=0) - 1.0 / classes
    gram = train @ train.T + ridge * np.eye(len(train))
    scores = test @ train.T @ np.linalg.solve(gram, targets)
    truth = np.repeat(np.arange(classes), TEST)
    return float((scores.argmax(axis=1) == truth).mean())


def test_class_names_are_those_of_flower_images():
    assert SAMPLE_CLASS_NAMES == (
        "daisy",
        "dandelion",
        "roses",
        "sunflowers",
        "tulips",
    )


def test_writes_numbered_images_in_class_folders(tmp_path):
    directory = tmp_path / "new" / "parents" / "sample"
    assert write_small(directory, images_per_class=3) == directory
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in directory.parent.iterdir()] == ["sample"]
    written = {path.relative_to(directory).as_posix() for path in directory.rglob("*")}
    assert written == set(SAMPLE_CLASS_NAMES) | {
        f"{name}/{name}_000{number}.jpg"
        for name in SAMPLE_CLASS_NAMES
        for number in (1, 2, 3)
    }


def test_images_are_rgb_jpegs_of_varied_sizes_and_orientations(images):
    sizes = []
    for path in images.rglob("*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.append(image.size)
    landscape = [size for size in sizes if size[0] > size[1]]
    assert 0.6 < len(landscape) / len(sizes) < 0.9
    widths = [width for width, _ in landscape]
    heights = [height for _, height in landscape]
    assert 120 * 0.84 <= min(widths) < 120 * 0.95 < 120 * 1.05 < max(widths)
    assert max(widths) <= 120 * 1.16
    assert 90 * 0.84 <= min(heights) < max(heights) <= 90 * 1.16


def test_same_arguments_give_the_same_bytes(tmp_path):
    first = write_small(tmp_path / "first")
    second = write_small(tmp_path / "second")
    assert all_bytes(first) == all_bytes(second)


def test_more_images_change_none_of_the_first(tmp_path):
    few = all_bytes(write_small(tmp_path / "few", images_per_class=2))
    many = all_bytes(write_small(tmp_path / "many", images_per_class=4))
    assert len(many) == 2 * len(few)
    assert few.items() <= many.items()


def test_another_seed_gives_other_images(tmp_path):
    one = all_bytes(write_small(tmp_path / "one", seed=1))
    two = all_bytes(write_small(tmp_path / "two", seed=2))
    assert not set(one.values()) & set(two.values())


def test_images_are_distinct(images, thumbnails):
    contents = all_bytes(images)
    assert len(set(contents.values())) == len(contents)
    flat = thumbnails.reshape(-1, 16 * 16 * 3)
    squared = (flat**2).sum(axis=1)
    distances = squared[:, None] + squared - 2.0 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    # No two look alike either: the mean difference of a value exceeds 0.03 of 1.
    assert math.sqrt(distances.min() / flat.shape[1]) > 0.03


def test_colour_alone_does_not_decide(thumbnails):
    mean_colors = thumbnails.mean(axis=(2, 3))
    assert nearest_centroid_accuracy(mean_colors) < 0.5


def test_backdrops_do_not_tell_the_class(thumbnails):
    top_edges = thumbnails[:, :, :2].mean(axis=(2, 3))
    assert nearest_centroid_accuracy(top_edges) < 0.4


def test_layout_can_be_learned(thumbnails):
    pixels = thumbnails.reshape(len(SAMPLE_CLASS_NAMES), TRAIN + TEST, -1)
    assert linear_accuracy(pixels) > 0.55


@settings(max_examples=8, deadline=None)
@given(
    image_size=st.tuples(st.integers(32, 160), st.integers(32, 160)),
    seed=st.integers(0, 2**70),
)
def test_any_size_and_seed_can_be_drawn(image_size, seed):
    with tempfile.TemporaryDirectory() as folder:
        directory = write_sample(
            Path(folder) / "sample",
            images_per_class=1,
            image_size=image_size,
            seed=seed,
        )
        for path in directory.rglob("*.jpg"):
            with Image.open(path) as image:
                turned = [image.size, image.size[::-1]]
                assert any(
                    max(32, side * 0.84 - 1) <= drawn <= side * 1.16 + 1
                    for size in turned
                    for side, drawn in zip(image_size, size, strict=True)
                )


def test_progress_counts_every_image(tmp_path):
    calls: list[tuple[int, int]] = []
    write_sample(
        tmp_path / "sample",
        images_per_class=2,
        image_size=SMALL,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 10) for done in range(1, 11)]


def test_an_empty_folder_is_filled(tmp_path):
    directory = tmp_path / "empty"
    directory.mkdir()
    write_small(directory, images_per_class=1)
    assert len(all_bytes(directory)) == 5
    assert list(tmp_path.iterdir()) == [directory]


def test_a_folder_with_something_in_it_is_refused_untouched(tmp_path):
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "note.txt").write_text("keep")
    with pytest.raises(InputError, match=r"new or an empty folder.*mine"):
        write_small(directory)
    assert [path.name for path in directory.iterdir()] == ["note.txt"]
    assert list(tmp_path.iterdir()) == [directory]


def test_a_file_is_refused_untouched(tmp_path):
    file = tmp_path / "file"
    file.write_text("keep")
    with pytest.raises(InputError, match="new or an empty folder"):
        write_small(file)
    with pytest.raises(InputError, match="cannot be written"):
        write_small(file / "below")
    assert file.read_text() == "keep"
    assert list(tmp_path.iterdir()) == [file]


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="current folder"):
        write_small(Path())
    assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.parent.glob(".*.partial")) == []


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_is_left_when_it_stops_half_way(tmp_path, error, existing):
    directory = tmp_path / "new" / "sample"
    if existing:
        directory.mkdir(parents=True)

    def stop(done: int, total: int) -> None:
        assert total == 20
        if done == 7:
            raise error

    with pytest.raises(type(error)):
        write_sample(directory, images_per_class=4, image_size=SMALL, progress=stop)
    left = [tmp_path / "new", directory] if existing else []
    assert sorted(tmp_path.rglob("*")) == left


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    save = Image.Image.save

    def save_until_full(self: Image.Image, path: Path, **options: int) -> None:
        if path.name == "roses_0001.jpg":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, **options)

    monkeypatch.setattr(Image.Image, "save", save_until_full)
    with pytest.raises(InputError, match=r"sample.*cannot be written: No space left"):
        write_small(tmp_path / "sample")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_per_class": 0}, "`images_per_class` must be an integer from 1"),
        ({"images_per_class": 100_001}, "Received: images_per_class=100001"),
        ({"images_per_class": 2.5}, "Received: images_per_class=2.5"),
        ({"images_per_class": True}, "Received: images_per_class=True"),
        ({"seed": -1}, "`seed` must be an integer from 0 up. Received: seed=-1"),
        ({"seed": "42"}, "Received: seed='42'"),
        ({"image_size": 8192}, r"`image_size` must be an integer from \d+ to \d+"),
        ({"image_size": "48"}, r"`image_size` must be a pair .*\(height, width\)"),
        ({"image_size": (64, 64, 3)}, r"Received: image_size=\(64, 64, 3\)"),
        ({"image_size": (31, 64)}, "from 32 to 2048. Received: image_size=31"),
        ({"image_size": (64, 2049)}, "from 32 to 2048. Received: image_size=2049"),
        ({"image_size": (64, None)}, r"Received: image_size=\(64, None\)"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        write_sample(tmp_path / "sample", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_numpy_integers_and_lists_are_taken(tmp_path):
    plain = write_small(tmp_path / "plain", images_per_class=1)
    other = write_sample(
        str(tmp_path / "other"),
        images_per_class=np.int64(1),
        image_size=list(SMALL),
        seed=np.uint8(42),
    )
    assert all_bytes(plain) == all_bytes(other)


def test_other_pictures_need_another_version(images):
    """If this fails because the drawing changed, increase `SAMPLE_VERSION`, too."""
    first = [images / name / f"{name}_0001.jpg" for name in SAMPLE_CLASS_NAMES]
    means = [np.asarray(Image.open(path)).mean(axis=(0, 1)) for path in first]

    assert SAMPLE_VERSION == "1"
    expected = [
        [114, 100, 83],
        [112, 114, 70],
        [95, 92, 65],
        [93, 81, 44],
        [147, 140, 70],
    ]
    np.testing.assert_allclose(means, expected, atol=1.5)
