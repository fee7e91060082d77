import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import filelock
import keras
import numpy as np
import pytest
from event_reading import read_runs
from helpers import (
    RESULTS,
    assert_same_weights,
    no_file_larger_than,
    small_loader,
    small_model,
)
from interruption import Interrupt, InterruptedAtError
from keras_flowers.callbacks import read_history

from keras_flowers import ImageClassifier, InputError, TrainingConfig, train
from keras_flowers.models.transfer import build_like, transfer_weights
from keras_flowers.training.schedules import warm_up_and_cosine

KILLS = int(os.environ.get("KERAS_FLOWERS_KILLS", "2"))


def run(tmp_path, *, callbacks=(), directory="run", loader=None, **options):
    options = {"epochs": 4, "verbose": 0, "build_model": small_model} | options
    return train(
        loader or small_loader(tmp_path),
        run_directory=None if directory is None else tmp_path / directory,
        callbacks=callbacks,
        **options,
    )


def interrupted_in(epoch, tmp_path, error=InterruptedAtError, **options):
    if error is KeyboardInterrupt:
        assert run(tmp_path, callbacks=[Interrupt(epoch, error)], **options).interrupted
    else:
        with pytest.raises(error):
            run(tmp_path, callbacks=[Interrupt(epoch, error)], **options)


def assert_same_run(first, second):
    assert_same_weights(first.model, second.model)
    for name, values in first.history.items():
        if name not in ("seconds", "photos_per_second"):
            np.testing.assert_array_equal(values, second.history[name], name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of every test that changes no option, never interrupted."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param([(1, KeyboardInterrupt)], marks=pytest.mark.xla, id="as users do"),
        pytest.param(
            [(1, InterruptedAtError), (3, InterruptedAtError), (3, KeyboardInterrupt)],
            id="without XLA",
        ),
    ],
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path, ends):
    def build(datasets):
        return small_model(datasets, dropout=0.3)

    options = {"build_model": build, "early_stopping": 2}
    whole = run(tmp_path, directory="whole", **options)
    for epoch, error in ends:
        options["directory"] = f"{epoch}-{error.__name__}"
        directory = tmp_path / options["directory"]
        interrupted_in(epoch, tmp_path, error, **options)
        assert read_history(directory)["epoch"] == list(range(1, epoch + 1))
        resumed = run(tmp_path, **options, resume=True)
        assert_same_run(whole, resumed)
        assert not resumed.interrupted
        assert sorted(p.name for p in directory.iterdir()) == RESULTS
        assert read_history(directory) == resumed.history
        assert_same_weights(
            keras.models.load_model(directory / "model.keras"), resumed.model
        )


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path):
    run(tmp_path, directory="whole", epochs=6)
    interrupted_in(3, tmp_path, epochs=6)
    run(tmp_path, epochs=6, resume=True)
    whole, resumed = (
        read_runs(tmp_path / directory / "tensorboard")
        for directory in ("whole", "run")
    )
    for split in ("train", "validation"):
        assert whole[split].keys() == resumed[split].keys()
        for tag, values in whole[split].items():
            assert [step for step, _ in values] == [s for s, _ in resumed[split][tag]]
            if tag not in ("epoch_photos_per_second", "keras"):
                for (_, first), (_, second) in zip(
                    values, resumed[split][tag], strict=True
                ):
                    np.testing.assert_array_equal(first, second)


def test_a_model_that_knows_no_input_shape_is_resumed(tmp_path):
    def build(datasets):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(len(datasets.class_names), activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    whole = run(tmp_path, directory="whole", build_model=build)
    interrupted_in(2, tmp_path, build_model=build)
    assert_same_run(whole, run(tmp_path, build_model=build, resume=True))


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A model whose layers are built when it is called, as users write them."""

    def __init__(self, classes, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.rescale = keras.layers.Rescaling(1 / 255)
        self.flatten = keras.layers.Flatten()
        self.dropout = keras.layers.Dropout(0.3, seed=1)
        self.dense = keras.layers.Dense(classes, activation="softmax")

    def call(self, images, training=False):
        x = self.flatten(self.rescale(images))
        return self.dense(self.dropout(x, training=training))

    def get_config(self):
        return super().get_config() | {"classes": self.classes}


# TensorBoard says that such a model has no graph.
@pytest.mark.filterwarnings("ignore:The model graph was not written")
def test_a_subclassed_model_is_trained_and_resumed(tmp_path):
    def build(datasets):
        keras.utils.set_random_seed(1)
        model = Subclassed(len(datasets.class_names))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    whole = run(tmp_path, directory="whole", build_model=build)
    interrupted_in(2, tmp_path, build_model=build)
    assert_same_run(whole, run(tmp_path, build_model=build, resume=True))


def test_ctrl_c_in_the_first_epoch_begins_anew(tmp_path, whole):
    interrupted_in(0, tmp_path, KeyboardInterrupt)
    assert_same_run(whole, run(tmp_path, resume=True))


def test_a_run_is_resumed_from_its_configuration(tmp_path, whole):
    interrupted_in(2, tmp_path)
    config = TrainingConfig.read(tmp_path / "run" / "config.json")
    resumed = train(config, run_directory=tmp_path / "run", resume=True, verbose=0)
    assert_same_run(whole, resumed)


def test_a_history_without_its_checkpoint_is_not_continued(tmp_path, whole):
    """Killed after the history of the first epoch and before its checkpoint."""
    interrupted_in(1, tmp_path)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    assert_same_run(whole, run(tmp_path, resume=True))
    assert not (tmp_path / "run" / "2").exists()


def test_a_history_that_is_ahead_of_the_checkpoint_is_not_repeated(tmp_path, whole):
    interrupted_in(3, tmp_path, checkpoint_every=2)
    assert read_history(tmp_path / "run")["epoch"] == [1, 2, 3]
    (tmp_path / "run" / "history.csv").unlink()
    assert_same_run(whole, run(tmp_path, resume=True, checkpoint_every=2))


def test_without_checkpoints_a_run_begins_anew(tmp_path, whole):
    interrupted_in(2, tmp_path, checkpoint_every=None)
    assert not list((tmp_path / "run" / "checkpoint").iterdir())
    assert_same_run(whole, run(tmp_path, resume=True, checkpoint_every=None))


def test_a_complete_run_is_returned(tmp_path):
    first = run(tmp_path)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    again = run(tmp_path, resume=True)
    assert_same_run(first, again)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()} == files


class Unregistered(keras.layers.Dense):
    """A layer of a user that `keras.models.load_model` does not know."""


def with_unregistered_layer(datasets):
    layers = [
        keras.Input((*datasets.image_size, 3)),
        keras.layers.Lambda(lambda x: x / 255),
        keras.layers.Flatten(),
        Unregistered(len(datasets.class_names), activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_a_complete_run_of_any_model_is_returned(tmp_path):
    first = run(tmp_path, build_model=with_unregistered_layer)
    again = run(tmp_path, build_model=with_unregistered_layer, resume=True)
    assert_same_run(first, again)
    steps = [r.model.optimizer.variables[0].numpy() for r in (first, again)]
    assert steps[0] == steps[1] > 0


def test_a_complete_run_whose_model_is_damaged_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / "run" / "model.keras").write_bytes(b"half")
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded"):
        run(tmp_path, resume=True)


class KilledError(BaseException):
    pass


def test_a_run_killed_while_its_checkpoint_was_removed_is_complete(
    tmp_path, monkeypatch
):
    def killed(folder, **options):
        if Path(folder).parent != tmp_path / "run" or not Path(folder).exists():
            return remove(folder, **options)  # of others
        for path in Path(folder).iterdir():
            path.unlink()
        raise KilledError

    remove = shutil.rmtree

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            run(tmp_path, discard_checkpoint=True)
    history = (tmp_path / "run" / "history.json").read_bytes()
    again = run(tmp_path, callbacks=[Interrupt(0)], resume=True)  # would end training
    assert again.history["epoch"] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "history.json").read_bytes() == history
    left = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert left == [name for name in RESULTS if name != "last-checkpoint"]


def test_a_run_killed_before_it_was_claimed_starts(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    assert len(run(tmp_path, epochs=1).history["epoch"]) == 1
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == RESULTS


def test_a_run_killed_twice_while_it_was_claimed_starts(tmp_path, whole):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    (tmp_path / "run" / "audit.json").write_text("{}")

    def killed(datasets):
        raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, build_model=killed, resume=True)
    assert_same_run(whole, run(tmp_path, resume=True))


def test_seeds_that_layers_draw_for_themselves_may_differ(tmp_path):
    def build(datasets):
        keras.utils.set_random_seed(next(seeds))
        layers = [
            keras.Input((*datasets.image_size, 3)),
            keras.layers.RandomCrop(*datasets.image_size),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(len(datasets.class_names), activation="softmax"),
        ]
        model = keras.Sequential(layers)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    seeds = iter((1, 1, 2))
    whole = run(tmp_path, directory="whole", build_model=build)
    interrupted_in(2, tmp_path, build_model=build)
    assert_same_run(whole, run(tmp_path, build_model=build, resume=True))


def test_resume_starts_a_run_where_there_is_none(tmp_path, whole):
    assert_same_run(whole, run(tmp_path, resume=True))
    (tmp_path / "claimed").mkdir()
    (tmp_path / "claimed" / "config.json").touch()  # killed while it was claimed
    assert_same_run(whole, run(tmp_path, directory="claimed", resume=True))


def test_images_may_move_and_others_may_come(tmp_path, whole):
    interrupted_in(2, tmp_path)
    (tmp_path / "photos").rename(tmp_path / "moved")
    shutil.copy(tmp_path / "moved/daisy/000.png", tmp_path / "moved/daisy/zzz.png")
    loader = small_loader(tmp_path).get_config() | {"data": str(tmp_path / "moved")}
    shutil.rmtree(tmp_path / "photos")
    resumed = run(tmp_path, loader=_loader(loader), resume=True)
    assert_same_run(whole, resumed)


def _loader(config):
    return keras.saving.deserialize_keras_object(
        {
            "module": "keras_flowers",
            "class_name": "ImageDatasetLoader",
            "config": config,
            "registered_name": "keras_flowers>ImageDatasetLoader",
        }
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 5}, "epochs was 4 and is now 5"),
        ({"early_stopping": 1}, "early_stopping was None and is now 1"),
        ({"batch_size": 8}, "loader.config.batch_size was 4 and is now 8"),
        ({"dropout": 0.5}, "model.config.dropout was None and is now 0.5"),
        ({"learning_rate": 0.1}, "learning_rate was .* and is now .*"),
    ],
)
def test_a_run_is_resumed_as_it_was_started(tmp_path, options, named):
    interrupted_in(1, tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}

    def build(datasets):
        model = small_model(datasets, dropout=options.pop("dropout", None))
        model.compile(keras.optimizers.Adam(options.pop("learning_rate", 0.01)))
        return model

    loader = small_loader(tmp_path, batch_size=options.pop("batch_size", 4))
    rest = {k: v for k, v in options.items() if k in ("epochs", "early_stopping")}
    with pytest.raises(InputError, match=f"another configuration: .*{named}"):
        run(tmp_path, loader=loader, build_model=build, resume=True, **rest)
    assert {
        p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()
    } == before


def test_a_image_that_is_gone_is_named(tmp_path):
    interrupted_in(1, tmp_path)
    (tmp_path / "photos" / "roses" / "001.png").unlink()
    with pytest.raises(InputError, match=r"missing or unreadable: roses/001\.png"):
        run(tmp_path, resume=True)


def test_of_two_processes_one_is_refused(tmp_path):
    interrupted_in(1, tmp_path)
    with (
        filelock.FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(InputError, match="Another process is training"),
    ):
        run(tmp_path, resume=True)


def test_resume_needs_a_directory_that_may_hold_a_run(tmp_path):
    with pytest.raises(InputError, match="`run_directory`"):
        train("sample", resume=True)
    with pytest.raises(InputError, match="`resume` must be True or False"):
        run(tmp_path, resume="no")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with pytest.raises(
        InputError, match="does not hold a run: there is no config.json"
    ):
        run(tmp_path, resume=True)
    with pytest.raises(InputError, match="`checkpoint_every`"):
        run(tmp_path, checkpoint_every=0)
    (tmp_path / "run" / "config.json").write_text("[")
    with pytest.raises(InputError, match="is not a run configuration"):
        run(tmp_path, resume=True)


class FillTheDisk(keras.callbacks.Callback):
    """After two epochs no file can have more than a few bytes.

    The checkpoint of the first is on the disk by then.
    """

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.stack.enter_context(no_file_larger_than(100))


def test_a_full_disk_ends_a_run_that_can_be_resumed(tmp_path, whole):
    full = FillTheDisk()
    with full.stack, pytest.raises(InputError, match="cannot be written") as error:
        run(tmp_path, callbacks=[full])
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "resume the run" in lines[1]
    assert_same_run(whole, run(tmp_path, resume=True))


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    interrupted_in(1, tmp_path)
    (tmp_path / "run" / ".0123456789abcdef.keras").write_bytes(b"half a model")
    run(tmp_path, resume=True)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == RESULTS


# --- killed for real


def training(folder, epochs):
    """Starts a process that trains, and says so on its stdout."""
    return subprocess.Popen(
        [sys.executable, "resumable_run.py", str(folder), str(epochs)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def seconds_of_an_epoch(process, epochs):
    """Returns the mean time of the epochs after the first one, which compiles."""
    assert process.stdout.readline() == "training\n", process.stderr.read()
    moments = []
    for _ in range(epochs):
        assert process.stdout.readline() == "epoch\n", process.stderr.read()
        moments.append(time.monotonic())
    return (moments[-1] - moments[0]) / (epochs - 1)


def kill(process, moment):
    """Kills the process at a moment before, in or after the first epochs it trains."""
    assert process.stdout.readline() == "training\n", process.stderr.read()
    if moment > 0:
        assert process.stdout.readline() == "epoch\n", process.stderr.read()
    time.sleep(abs(moment))
    process.send_signal(signal.SIGKILL)


@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_run_that_is_killed_many_times_equals_one_that_never_was(tmp_path):
    """SIGKILL at random moments: KERAS_FLOWERS_KILLS=50 is the nightly form."""
    epochs = 4 * KILLS + 4
    (tmp_path / "whole").mkdir()
    with training(tmp_path / "whole", epochs) as process:
        seconds = seconds_of_an_epoch(process, epochs)
        expected = result_of(process)
    shutil.copytree(tmp_path / "whole" / "photos", tmp_path / "killed" / "photos")
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)
    for _ in range(KILLS):
        with training(tmp_path / "killed", epochs) as process:
            kill(process, moments.uniform(-seconds, 3 * seconds))
    done = read_history(tmp_path / "killed" / "run").get("epoch", [])
    assert len(done) < epochs, f"seed {seed}: nothing was left to resume"
    with training(tmp_path / "killed", epochs) as process:
        result = result_of(process)
    assert result == expected, f"seed {seed}, {len(done)} epochs were done"
    names = {path.name for path in (tmp_path / "killed" / "run").iterdir()}
    assert names == set(RESULTS)


def growing_worse(datasets):
    """A model that learns for two epochs, of five steps each, and then goes astray."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.05, 50.0])
    model = small_model(datasets, dropout=0.3)
    model.compile(keras.optimizers.SGD(rate))
    return model


@pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning")
def test_the_best_epoch_is_kept_whenever_the_run_is_interrupted(tmp_path):
    options = {"build_model": growing_worse, "epochs": 5, "tensorboard": False}
    whole = run(tmp_path, directory="whole", **options)
    losses = whole.history["val_loss"]
    best = losses.index(min(losses)) + 1
    assert best == 2
    assert whole.saved_epoch == best
    saved = keras.models.load_model(tmp_path / "whole" / "model.keras")
    loss, _ = saved.evaluate(whole.datasets.validation, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-5)
    for epoch in (1, 2, 4):
        place = {"directory": f"run-{epoch}", **options}
        interrupted_in(epoch, tmp_path, KeyboardInterrupt, **place)
        resumed = run(tmp_path, resume=True, **place)
        assert_same_run(whole, resumed)
        assert resumed.saved_epoch == best
    again = run(tmp_path, directory="whole", resume=True, **options)
    assert again.saved_epoch == best
    report = (tmp_path / "whole" / "report.html").read_text()
    assert f"model.keras has epoch {best}" in report
    last = run(tmp_path, directory=None, keep="last", **options)
    assert last.saved_epoch == 5
    assert last.history["val_loss"] == losses
    loss, _ = last.model.evaluate(whole.datasets.validation, verbose=0)
    assert loss == pytest.approx(losses[-1], rel=1e-5)


def test_the_state_of_the_optimizer_is_saved_on_request(tmp_path):
    sizes = {}
    for directory, options in (("plain", {}), ("whole", {"save_optimizer": True})):
        run(tmp_path, directory=directory, epochs=1, tensorboard=False, **options)
        file = tmp_path / directory / "model.keras"
        sizes[directory] = file.stat().st_size
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = keras.models.load_model(file)
        steps = int(model.optimizer.iterations.numpy())
        assert steps == (5 if options else 0)
        assert model.optimizer.built == bool(options)
        model.fit(np.zeros((2, 8, 8, 3), "uint8"), np.zeros(2), verbose=0)
        model.save(tmp_path / "again.keras")
        keras.models.load_model(tmp_path / "again.keras")
    assert sizes["plain"] < sizes["whole"]


def test_a_finished_run_is_trained_further(tmp_path):
    options = {"tensorboard": False}
    whole = run(tmp_path, directory="whole", epochs=4, **options)
    run(tmp_path, epochs=2, **options)
    with pytest.raises(InputError, match="epochs was 2 and is now 1"):
        run(tmp_path, epochs=1, resume=True, **options)
    interrupted_in(3, tmp_path, epochs=4, resume=True, **options)
    further = run(tmp_path, epochs=4, resume=True, **options)
    assert_same_run(whole, further)
    assert further.saved_epoch == whole.saved_epoch
    assert TrainingConfig.read(tmp_path / "run" / "config.json").epochs == 4
    # From its configuration alone, and once more.
    config = TrainingConfig.read(tmp_path / "run" / "config.json").with_epochs(5)
    more = train(config, run_directory=tmp_path / "run", resume=True, verbose=0)
    assert more.history["epoch"] == [1, 2, 3, 4, 5]
    shutil.rmtree(tmp_path / "run" / "last-checkpoint")
    with pytest.raises(InputError, match="last checkpoint was not kept.*init_from"):
        run(tmp_path, epochs=6, resume=True, **options)


def test_a_schedule_continues_where_it_would_be_in_a_longer_run(tmp_path):
    def build(datasets):
        model = small_model(datasets)
        model.compile(keras.optimizers.Adam(warm_up_and_cosine(0.01, 5 * epochs)))
        return model

    epochs = 4
    options = {"build_model": build, "tensorboard": False, "epochs": epochs}
    whole = run(tmp_path, directory=None, **options)
    epochs = options["epochs"] = 2
    run(tmp_path, **options)
    config = TrainingConfig.read(tmp_path / "run" / "config.json").with_epochs(4)
    further = train(config, run_directory=tmp_path / "run", resume=True, verbose=0)
    rates = (whole.history["learning_rate"], further.history["learning_rate"])
    # Of so few steps, the warm-up is none or one.
    np.testing.assert_allclose(rates[0][2:], rates[1][2:], rtol=0.15, atol=1e-9)
    assert rates[1][1] == pytest.approx(0, abs=1e-9)


def test_a_run_starts_from_the_weights_of_another_model(tmp_path):
    first = run(tmp_path, directory="first", tensorboard=False)
    file = tmp_path / "first" / "model.keras"
    counts = {"daisy": 10, "tulips": 6}
    loader = small_loader(tmp_path / "two", counts)
    said = []
    options = {"init_from": file, "epochs": 1, "tensorboard": False}
    second = train(
        loader,
        run_directory=tmp_path / "second",
        on_transferred=said.append,
        verbose=0,
        **options,
    )
    assert said == [f"Started from {file}: hidden_1; 2 of 2 classes"]
    assert second.model.hidden_units == first.model.hidden_units == (8,)
    recorded = json.loads((tmp_path / "second" / "config.json").read_text())
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    assert recorded["init_from"] == {"file": str(file), "sha256": checksum}
    config = TrainingConfig.read(tmp_path / "second" / "config.json")
    assert_same_weights(train(config, verbose=0).model, second.model)
    model = build_like(file, ["roses", "orchids"], seed=1)
    new = model.get_layer("predictions").get_weights()
    assert "new: orchids" in transfer_weights(model, file)
    there, here = (
        m.get_layer("predictions").get_weights() for m in (first.model, model)
    )
    for before, old, now in zip(new, there, here, strict=True):
        np.testing.assert_array_equal(now[..., 0], old[..., 1])
        np.testing.assert_array_equal(now[..., 1], before[..., 1])
    with pytest.raises(InputError, match="`init_from`: no layer"):
        transfer_weights(ImageClassifier(["a", "b"], (9, 9), (3,)), file)
