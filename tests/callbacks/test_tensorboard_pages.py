"""The real TensorBoard in a real browser shows the data of a run."""

import dataclasses
import time

import pytest
from browser import (
    console_errors,
    find_all,
    open_page,
    page_text,
    require_browser,
    wait_for_text,
)
from helpers import small_loader
from keras_flowers.callbacks import TensorBoard, TensorBoardOptions
from tensorboard_server import running_tensorboard, runs_of

import keras_flowers

pytestmark = pytest.mark.usefixtures("with_charts")


@dataclasses.dataclass
class Shown:
    run: keras_flowers.TrainingRun
    address: str
    driver: object

    def open(self, tab, options="darkMode=false"):
        self.driver.get(f"{self.address}/?{options}#{tab}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run of `train` and a training of one's own, in TensorBoard in a browser."""
    require_browser()
    folder = tmp_path_factory.mktemp("pages")
    runs = folder / "runs"
    run = keras_flowers.train(
        small_loader(folder), epochs=2, run_directory=runs / "first", verbose=0
    )
    options = TensorBoardOptions(embedded_images=9)
    data = run.datasets.validation
    callback = TensorBoard(runs / "own", validation_data=data, options=options)
    model = run.model
    model.fit(
        data, validation_data=data, callbacks=[callback], shuffle=False, verbose=0
    )
    expected = {"first/tensorboard/train", "first/tensorboard", "own/validation"}
    with running_tensorboard(runs) as address:
        assert expected <= runs_of(address, expected)
        with open_page(f"{address}/#timeseries", folder) as driver:
            yield Shown(run, address, driver)


def wait_for(found, seconds=60):
    """Returns what `found()` returns once that is true."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "the page does not show it"
        time.sleep(0.3)
    return result


def test_time_series_show_the_values_of_the_run(shown):
    shown.open("timeseries", "darkMode=false&tagFilter=epoch_loss")
    history = shown.run.history
    values = (f"{history[name][-1]:.4g}" for name in ("loss", "val_loss"))
    names = "first/tensorboard/train", "first/tensorboard/validation"
    wait_for_text(shown.driver, "epoch_loss", *names, *values)
    assert console_errors(shown.driver) == []


def test_scalars_show_the_tags(shown):
    shown.open("scalars")
    wait_for_text(
        shown.driver,
        "epoch_accuracy",
        "epoch_learning_rate",
        "epoch_photos_per_second",
        "precision",
        "recall",
        "first/tensorboard/validation",
    )


def test_images_show_images_and_confusion_matrix(shown):
    shown.open("images")
    wait_for_text(
        shown.driver,
        "augmented_photos",
        "confusion_matrix",
        "mistakes",
        "own/validation",
    )
    script = "return [...arguments].filter(i => i.naturalWidth >= 200).length"
    # Of two trainings; one has augmented photos, and none has mistakes unfolded.
    wait_for(
        lambda: shown.driver.execute_script(script, *find_all(shown.driver, "img")) == 3
    )


def test_graphs_show_the_layers(shown):
    from selenium.webdriver.common.action_chains import ActionChains

    shown.open("graphs")
    wait_for_text(shown.driver, "first/tensorboard/train", "Main Graph")
    name = shown.run.model.name
    selector = f"g.node[data-name='{name}'] rect.nodecolortarget"
    selector = f"g.node[data-name='{name}'] rect.nodecolortarget"
    layers = {f"{name}/{layer.name}" for layer in shown.run.model.layers[1:]}
    wait_for(lambda: find_all(shown.driver, selector))

    def unfolded():
        # The picture may still move, and a click then miss it.
        (box,) = find_all(shown.driver, selector)
        ActionChains(shown.driver).double_click(box).perform()
        time.sleep(2)
        nodes = find_all(shown.driver, "g.node")
        return layers <= {node.get_attribute("data-name") for node in nodes}

    wait_for(unfolded)


def test_hparams_show_values_and_metrics(shown):
    shown.open("hparams")
    text = wait_for_text(
        shown.driver,
        "hidden_units",
        "learning_rate",
        "validation.epoch_accuracy",
        "train.epoch_loss",
        "8x8",
        # As JavaScript's `toPrecision(5)` writes them.
        f"{shown.run.history['val_accuracy'][-1]:#.5g}",
        f"{shown.run.history['val_loss'][-1]:#.5g}",
    )
    row = text[text.index("Show Metrics") :]
    assert row.index("batch_size") < row.index("4.0000")


def test_text_shows_the_configuration(shown):
    shown.open("text")
    wait_for_text(shown.driver, "configuration", '"early_stopping": null', '"seed": 42')


def test_the_projector_shows_the_validation_images(shown):
    shown.open("projector")
    count = len(shown.run.datasets.paths("validation"))
    wait_for_text(
        shown.driver, "validation photos", "Points:", "Dimension:", "predicted"
    )
    text = page_text(shown.driver)
    points = text[text.index("Points:") :].splitlines()[1]
    assert int(points) == count


def test_a_missing_browser_fails_on_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="chromedriver"):
        require_browser()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="chromium"):
        require_browser()
