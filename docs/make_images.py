"""Makes the pictures of docs/images/ anew, from runs on the sample data set.

    python docs/make_images.py [PHOTOS WEIGHTS]

Needs the extra `test`, and Debian's packages chromium and chromium-driver. The range
test is drawn only with PHOTOS, a folder of images such as flower_photos, and WEIGHTS,
`.h5` file with weights of MobileNet 0.25.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import find_all, open_page, wait_for_text  # noqa: E402
from keras_flowers_cli.main import run as main_of_command_line  # noqa: E402
from tensorboard_server import running_tensorboard, runs_of  # noqa: E402

import keras_flowers  # noqa: E402

RUNS = {
    "first": {"hidden_units": (256, 128)},
    "dropout": {"hidden_units": (256, 128), "dropout": 0.2},
    "small": {"hidden_units": (64,)},
}
WIDE, TALL = (1700, 700), (900, 2050)
PAGE = (1200, 1200)


def train_all(runs: Path) -> None:
    """Trains each run."""
    loader = keras_flowers.ImageDatasetLoader("sample", image_size=(128, 128))
    for name, options in RUNS.items():

        def build(
            datasets: keras_flowers.ImageDatasets, options: dict = options
        ) -> keras_flowers.ImageClassifier:
            return keras_flowers.ImageClassifier(
                datasets.class_names, datasets.image_size, seed=42, **options
            )

        keras_flowers.train(
            loader, build, epochs=10, run_directory=runs / name, verbose=0
        )


def save(driver: object, name: str, box: tuple[int, int, int, int]) -> None:
    """Saves a part of the window, smaller and in few bytes."""
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as shot:
        picture = shot.convert("RGB").crop(box)
    picture.thumbnail((1200, 1500), Image.Resampling.LANCZOS)
    picture = picture.quantize(200, dither=Image.Dither.NONE)
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    picture.save(folder / name, optimize=True)


def picture_report(folder: Path, run: Path) -> None:
    """The report of a run, without its title and below it the path of the images."""
    page = (run / "report.html").absolute().as_uri()
    with open_page(page, folder, (1000, 1500)) as driver:
        save(driver, "report.png", (0, 96, 1000, 1320))


def picture_images(folder: Path, run: Path) -> None:
    """The Images tab, with all three images of a run."""
    expected = {"tensorboard/validation"}
    with running_tensorboard(run) as address:
        runs_of(address, expected)
        with open_page(f"{address}/?darkMode=false#images", folder, TALL) as driver:
            wait_for_text(driver, "augmented_photos", "confusion_matrix", "mistakes")
            (header,) = (
                element
                for element in find_all(driver, "button.heading")
                if "mistakes" in element.text
            )
            driver.execute_script("arguments[0].click()", header)
            time.sleep(3)
            save(driver, "tensorboard-images.png", (0, 0, TALL[0], 1850))


def picture_hparams(folder: Path, runs: Path) -> None:
    """The HParams tab, with a row for each run."""
    expected = {f"{name}/tensorboard" for name in RUNS}
    with running_tensorboard(runs) as address:
        runs_of(address, expected)
        with open_page(f"{address}/?darkMode=false#hparams", folder, WIDE) as driver:
            wait_for_text(driver, "validation.epoch_accuracy", "hidden_units")
            time.sleep(2)
            save(driver, "tensorboard-hparams.png", (0, 0, WIDE[0], 330))


def picture_explanation(folder: Path) -> None:
    """What a convolutional network looks at in a drawn rose."""
    loader = keras_flowers.ImageDatasetLoader("sample", image_size=(128, 128))

    def build(datasets: keras_flowers.ImageDatasets) -> keras_flowers.ImageClassifier:
        return keras_flowers.ImageClassifier(
            datasets.class_names, datasets.image_size, backbone="small_convnet", seed=1
        )

    run = keras_flowers.train(
        loader, build, epochs=25, run_directory=folder / "convnet", verbose=0
    )
    paths = [p for p in run.datasets.paths("validation") if p.parent.name == "roses"]
    explanations = keras_flowers.explain(run.model, paths)
    surest = max(
        (one for one in explanations if one.class_name == "roses"),
        key=lambda one: one.probability,
    )
    surest.plot().savefig(ROOT / "docs" / "images" / "explain.png", dpi=110)


def picture_page(folder: Path, run: Path) -> None:
    """The page of `keras-flowers serve`, with three drawn flowers and a heat map."""
    images = keras_flowers.write_sample(folder / "new", images_per_class=1, seed=3)
    names = ("roses", "sunflowers", "tulips")
    paths = [next((images / name).iterdir()).absolute() for name in names]
    command = [Path(sys.executable).with_name("keras-flowers"), "serve", run]
    server = subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[2]
        with open_page(address, folder, PAGE) as driver:
            wait_for_text(driver, "Drop images here")
            driver.find_element("id", "choose").send_keys("\n".join(map(str, paths)))
            while len(find_all(driver, ".why:not([hidden])")) < len(paths):
                time.sleep(0.3)
            driver.find_element("class name", "why").click()
            wait_for_text(driver, "is shown.")
            driver.execute_script("scrollTo(0, 0)")
            time.sleep(2)
            save(driver, "serve.png", (0, 0, PAGE[0], 930))
    finally:
        server.terminate()
        server.wait()


def draw_faults(folder: Path) -> None:
    """Draws the sample with a label conflict, copies and a damaged file."""
    keras_flowers.write_sample(folder)
    daisy = folder / "daisy"
    first, second, third = sorted(daisy.iterdir())[:3]
    with Image.open(first) as image:
        image.resize((160, 160)).save(daisy / f"{first.stem} (web).jpg", quality=70)
    (daisy / f"{second.stem} (copy).jpg").write_bytes(second.read_bytes())
    (folder / "roses" / "bouquet.jpg").write_bytes(third.read_bytes())
    tulip = min((folder / "tulips").iterdir())
    (folder / "tulips" / "cut.jpg").write_bytes(tulip.read_bytes()[:2000])
    (folder / "roses" / ".DS_Store").touch()


def picture_audit(folder: Path) -> None:
    """The page of an audit, whose output on the command line is in the guide."""
    draw_faults(folder / "photos")
    main_of_command_line(["audit", "photos", "--html", "audit.html"])
    page = (folder / "audit.html").absolute().as_uri()
    with open_page(page, folder, (1000, 1600)) as driver:
        save(driver, "audit.png", (0, 0, 1000, 1250))


def picture_range_test(photos: str, weights: str) -> None:
    """The range test of a head and of the default model, side by side."""
    models = {
        "the head of MobileNet 0.25": ((224, 224), ("mobilenet_0.25", weights)),
        "the dense network on pixels": ((256, 256), None),
    }
    panels = []
    for title, (size, network) in models.items():
        loader = keras_flowers.ImageDatasetLoader(
            photos, image_size=size, test_split=0.15, seed=1
        )
        datasets = loader.load()
        backbone = network and keras_flowers.Backbone(*network, image_size=size)
        model = keras_flowers.ImageClassifier(
            datasets.class_names, size, seed=1, backbone=backbone
        )
        model.compile()
        search = keras_flowers.find_learning_rate(model, datasets)
        panels.append((title, search))
    save_side_by_side(panels)


def save_side_by_side(
    panels: list[tuple[str, keras_flowers.LearningRateSearch]],
) -> None:
    """Saves the plots of range tests as one picture."""
    pictures = []
    for title, search in panels:
        figure = search.plot()
        figure.axes[0].set_title(title)
        figure.set_size_inches(5.5, 4)
        file = io.BytesIO()
        figure.savefig(file, dpi=110)
        pictures.append(Image.open(file).convert("RGB"))
    width = sum(picture.width for picture in pictures)
    whole = Image.new("RGB", (width, pictures[0].height))
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width
    whole = whole.quantize(64, dither=Image.Dither.NONE)
    whole.save(ROOT / "docs" / "images" / "lr-find.png", optimize=True)


def main() -> None:
    """Makes all pictures."""
    if len(sys.argv) > 2:
        picture_range_test(*sys.argv[1:3])
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # paths on the pictures are then short
        picture_audit(Path(scratch))
        train_all(Path("runs"))
        picture_images(Path(scratch), Path("runs/first"))
        picture_hparams(Path(scratch), Path("runs"))
        picture_explanation(Path("runs"))
        picture_report(Path(scratch), Path("runs/convnet"))
        picture_page(Path(scratch), Path("runs/convnet"))


if __name__ == "__main__":
    main()
