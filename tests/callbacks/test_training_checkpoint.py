import errno
import json
import os
import threading
from concurrent.futures import Future
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import no_file_larger_than
from keras_flowers.callbacks import (
    HistoryLogger,
    TrainingCheckpoint,
    read_history,
    tensor_file,
)
from keras_flowers.callbacks.tensor_file import read_tensors, write_tensors
from safetensors.numpy import load_file, save_file

from keras_flowers import InputError

ARRAYS = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(7, dtype=np.int64),
    "seed": np.array([1, 2**32 - 1], dtype=np.uint32),
    "half": np.array([0.5, -np.inf, np.nan], dtype=np.float16),
    "empty": np.zeros((0, 3), dtype=np.float64),
    "flags": np.array([True, False]),
}


# --- the file


def test_arrays_come_back_bit_identical(tmp_path):
    path = tmp_path / "a.safetensors"
    brain = keras.ops.convert_to_numpy(keras.ops.ones((2,), "bfloat16"))
    arrays = ARRAYS | {"brain": brain, "transposed": ARRAYS["f32"].T}
    write_tensors(path, arrays, {"note": "é"})
    read, metadata = read_tensors(path)
    assert metadata == {"note": "é"}
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


def test_the_format_is_that_of_safetensors(tmp_path):
    write_tensors(tmp_path / "ours", ARRAYS, {"note": "x"})
    theirs = load_file(tmp_path / "ours")
    assert set(theirs) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(theirs[name], array)
    save_file(ARRAYS, tmp_path / "theirs", {"note": "x"})
    ours, metadata = read_tensors(tmp_path / "theirs")
    assert metadata == {"note": "x"}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(ours[name], array)


def test_others_may_read_the_file_as_far_as_the_umask_allows(tmp_path):
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {})
    write_tensors(tmp_path / "a.safetensors", ARRAYS, {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_of_version_0_1_is_read():
    folder = Path(__file__).parents[1] / "saved_by_0_1"
    for path in folder.glob("*/run/checkpoint/last.safetensors"):
        tensors, metadata = read_tensors(path)
        theirs = load_file(path)
        assert tensors.keys() == theirs.keys() > {"model/0", "optimizer/0"}
        for name, array in theirs.items():
            np.testing.assert_array_equal(tensors[name], array)
        assert json.loads(metadata["state"])["epochs"] == 1


@pytest.mark.parametrize("kept", [0, 4, 9, 60, -1])
def test_a_file_that_was_cut_is_noticed(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r".+"):
        read_tensors(path)


def test_a_file_that_is_none_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    headers = (
        b"[]",
        b"[" * 100_000,
        b'{"__metadata__": "x"}',
        b'{"__metadata__": {}, "a": {"dtype": "U8", "shape": [4], '
        b'"data_offsets": [-4, 0]}}',
        b'{"__metadata__": {}, "a": {"dtype": "U8", "shape": [4], '
        b'"data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [4], '
        b'"data_offsets": [2, 6]}}   ',
    )
    files = [len(h).to_bytes(8, "little") + h + b"123456" for h in headers]
    for content in (b"x" * 100, b"\xff" * 16, *files):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r".+"):
            read_tensors(path)


# --- the callback

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.float32)


def built(optimizer=keras.optimizers.Adam, units=5):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4, seed=5),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer(), "mse", jit_compile=False)
    return model


class StoppedError(Exception):
    pass


class StopIn(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch, as a crash does."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == self.at and batch == 2:
            raise StoppedError


def fit(model, epochs, checkpoint=None, callbacks=(), stop_in=None):
    begin = 0 if checkpoint is None else checkpoint.restore(model, epochs)
    last = [] if checkpoint is None else [checkpoint]
    stop = [] if stop_in is None else [StopIn(stop_in)]
    try:
        model.fit(
            X,
            Y,
            validation_data=(X, Y),
            batch_size=4,
            shuffle=False,
            epochs=epochs,
            initial_epoch=begin,
            callbacks=[*callbacks, *stop, *last],
            verbose=0,
        )
    except StoppedError:
        checkpoint.wait()
    return begin


def assert_equal_to_the_bit(first, second):
    pairs = zip(
        [*first.variables, *first.optimizer.variables],
        [*second.variables, *second.optimizer.variables],
        strict=True,
    )
    for a, b in pairs:
        a, b = (keras.ops.convert_to_numpy(v) for v in (a, b))
        assert a.tobytes() == b.tobytes()


def scheduled():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 7, 0.5)
    return keras.optimizers.SGD(schedule, momentum=0.9)


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.Adam, scheduled, lambda: keras.optimizers.Adam(use_ema=True)],
    ids=["adam", "schedule", "ema"],
)
def test_a_training_goes_on_as_if_nothing_had_happened(tmp_path, optimizer):
    whole = built(optimizer)
    fit(whole, 5)
    for stop_in in (0, 1, 4):
        folder = tmp_path / str(stop_in)
        fit(built(optimizer), 5, TrainingCheckpoint(folder), stop_in=stop_in)
        second = built(optimizer)
        assert fit(second, 5, TrainingCheckpoint(folder)) == stop_in
        assert_equal_to_the_bit(whole, second)


def keras_callbacks(tmp_path, name):
    return (
        keras.callbacks.ReduceLROnPlateau(
            monitor="loss", factor=0.5, patience=1, min_delta=0.5, cooldown=1
        ),
        keras.callbacks.EarlyStopping(
            monitor="loss", patience=4, min_delta=0.4, restore_best_weights=True
        ),
        keras.callbacks.ModelCheckpoint(
            tmp_path / f"{name}.weights.h5",
            monitor="val_loss",
            save_best_only=True,
            save_weights_only=True,
        ),
        HistoryLogger(tmp_path / name),
    )


def state_of(callbacks):
    plateau, early, best, _ = callbacks
    return {
        "plateau": (plateau.best, plateau.wait, plateau.cooldown_counter),
        "early": (early.best, early.wait, early.best_epoch, early.stopped_epoch),
        "best": best.best,
    }


def test_callbacks_go_on_with_what_they_knew(tmp_path):
    whole = keras_callbacks(tmp_path, "whole")
    model = built()
    fit(model, 12, callbacks=whole)
    stopped = whole[1].stopped_epoch
    assert 5 < stopped < 11, "else the test says nothing"
    for stop_in in (1, 3, 5):
        cut, after = (keras_callbacks(tmp_path, str(stop_in)) for _ in range(2))
        folder = tmp_path / f"checkpoint-{stop_in}"
        fit(
            built(), 12, TrainingCheckpoint(folder, cut), callbacks=cut, stop_in=stop_in
        )
        second = built()
        fit(second, 12, TrainingCheckpoint(folder, after), callbacks=after)
        assert_equal_to_the_bit(model, second)
        assert state_of(after) == state_of(whole)
        histories = [logger.history for *_, logger in (whole, after)]
        assert histories[0]["learning_rate"][-1] < histories[0]["learning_rate"][0]
        for name in ("epoch", "loss", "val_loss", "learning_rate"):
            assert histories[0][name] == histories[1][name]
        assert after[-1].folder == tmp_path / str(stop_in)


def test_a_history_that_was_in_memory_can_go_on_on_disk(tmp_path):
    first, second = HistoryLogger(), HistoryLogger(tmp_path / "a")
    fit(built(), 2, TrainingCheckpoint(tmp_path / "c", [first]), [first])
    fit(built(), 3, TrainingCheckpoint(tmp_path / "c", [second]), [second])
    assert read_history(tmp_path / "a") == second.history
    assert second.history["epoch"] == [1, 2, 3]


def test_ctrl_c_while_it_is_waited_for_does_not_lose_it(tmp_path, monkeypatch):
    checkpoint = TrainingCheckpoint(tmp_path)
    pending = Future()
    results = iter((KeyboardInterrupt, KeyboardInterrupt, None))

    def interrupted():
        if error := next(results):
            raise error

    monkeypatch.setattr(pending, "exception", interrupted)
    checkpoint._writing = pending
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            checkpoint.wait()
    checkpoint.wait()
    assert next(results, "waited for") == "waited for"


def test_a_training_that_a_callback_had_ended_is_only_finished(tmp_path):
    """Killed between the last epoch and the end, where the best weights come back."""

    def early():
        return keras.callbacks.EarlyStopping(
            monitor="loss", patience=1, min_delta=10.0, restore_best_weights=True
        )

    whole, first = early(), early()
    model = built()
    fit(model, 9, callbacks=[whole])
    stopped = built()
    fit(stopped, 9, TrainingCheckpoint(tmp_path, [first]), callbacks=[first])
    second, last = built(), early()
    assert fit(second, 9, TrainingCheckpoint(tmp_path, [last]), callbacks=[last]) == 9
    assert_equal_to_the_bit(model, second)


class Counting(keras.callbacks.Callback):
    """A callback of a user that keeps numbers, texts and arrays."""

    def __init__(self):
        super().__init__()
        self.state = {"count": 0, "arrays": [np.zeros(2, np.float32)], "name": "x"}

    def on_epoch_end(self, epoch, logs=None):
        self.state["count"] += 1
        self.state["arrays"][0] += 1

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def test_a_callback_of_ones_own_can_keep_its_state(tmp_path):
    callbacks = [Counting(), Counting()]
    fit(built(), 3, TrainingCheckpoint(tmp_path, callbacks), callbacks[:1])
    again = [Counting(), Counting()]
    fit(built(), 5, TrainingCheckpoint(tmp_path, again), again)
    assert again[0].state["count"] == 5
    assert again[0].state["arrays"][0].tolist() == [5, 5]
    assert again[1].state["count"] == 2


def test_a_state_is_copied_before_the_next_epoch_changes_it(tmp_path, monkeypatch):
    may_go_on = threading.Event()
    written = tensor_file.write_tensors

    def slow(path, tensors, metadata):
        assert may_go_on.wait(60)
        written(path, tensors, metadata)

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                may_go_on.set()
                checkpoint.wait()
                raise StoppedError

    module = "keras_flowers.callbacks.training_checkpoint.write_tensors"
    monkeypatch.setattr(module, slow)
    first, again = Counting(), Counting()
    checkpoint = TrainingCheckpoint(tmp_path, [first])
    fit(built(), 2, checkpoint, [first, Watch()])
    fit(built(), 1, TrainingCheckpoint(tmp_path, [again]), [again])
    assert again.state["count"] == 1
    assert again.state["arrays"][0].tolist() == [1, 1]


@pytest.mark.parametrize("stop_in", [2, None])
def test_weights_that_were_swapped_for_their_average_are_swapped_back(
    tmp_path, stop_in
):
    def averaging():
        return keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)

    swaps = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True) for _ in range(3)]
    whole, second = built(averaging), built(averaging)
    fit(whole, 4, callbacks=swaps[:1])
    cut = TrainingCheckpoint(tmp_path, swaps[1:2])
    fit(built(averaging), 4, cut, swaps[1:2], stop_in=stop_in)
    after = TrainingCheckpoint(tmp_path, swaps[2:])
    assert fit(second, 4, after, swaps[2:]) == (stop_in or 4)
    assert_equal_to_the_bit(whole, second)


@pytest.mark.parametrize("state", [{1, 2}, {1: 2}, {"words": np.array(["a"])}])
def test_a_state_that_cannot_be_kept_is_refused(tmp_path, state):
    callback = Counting()
    callback.state["deep"] = [state]
    checkpoint = TrainingCheckpoint(tmp_path, [callback])
    with pytest.raises(InputError, match="Received: callbacks/Counting 1/deep/0"):
        fit(built(), 1, checkpoint, [])


def test_checkpoints_are_as_rare_as_asked_for(tmp_path):
    fit(built(), 5, TrainingCheckpoint(tmp_path, every=2), stop_in=4)
    model = built()
    checkpoint = TrainingCheckpoint(tmp_path, every=2)
    assert checkpoint.restore(model, 5) == 4
    fit(built(), 3, TrainingCheckpoint(tmp_path / "other", every=2), stop_in=1)
    assert TrainingCheckpoint(tmp_path / "other").restore(model, 3) == 0


def test_the_folder_holds_one_file(tmp_path):
    fit(built(), 3, TrainingCheckpoint(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    fit(built(), 2, TrainingCheckpoint(tmp_path))
    (tmp_path / ".0123456789abcdef.safetensors").write_bytes(b"half")
    (tmp_path / ".tmpAb3xYz").write_bytes(b"half")  # of safetensors itself
    (tmp_path / ".mine").touch()
    TrainingCheckpoint(tmp_path).restore(built(), 2)
    assert {path.name for path in tmp_path.iterdir()} == {"last.safetensors", ".mine"}


def test_it_is_written_while_the_next_epoch_trains(tmp_path, monkeypatch):
    seen, may_go_on = [], threading.Event()
    written = tensor_file.write_tensors

    def slow(path, tensors, metadata):
        assert may_go_on.wait(60)
        seen.append(threading.current_thread())
        written(path, tensors, metadata)

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                assert not seen
                may_go_on.set()

    module = "keras_flowers.callbacks.training_checkpoint.write_tensors"
    monkeypatch.setattr(module, slow)
    model = built()
    fit(model, 2, TrainingCheckpoint(tmp_path), [Watch()])
    assert len(seen) == 2
    assert threading.main_thread() not in seen
    second = built()
    TrainingCheckpoint(tmp_path).restore(second, 2)
    assert_equal_to_the_bit(model, second)


def test_a_full_disk_ends_the_training_and_leaves_the_last_checkpoint(tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path)
    fit(built(), 3, checkpoint)
    before = checkpoint.path.read_bytes()
    with (
        no_file_larger_than(len(before) // 2),
        pytest.raises(
            InputError, match=rf"last.safetensors.*{os.strerror(errno.EFBIG)}"
        ),
    ):
        fit(built(), 9, TrainingCheckpoint(tmp_path))
    assert checkpoint.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]
    whole, second = built(), built()
    fit(whole, 9)
    assert fit(second, 9, TrainingCheckpoint(tmp_path)) == 3
    assert_equal_to_the_bit(whole, second)


def test_another_model_is_refused(tmp_path):
    fit(built(), 1, TrainingCheckpoint(tmp_path))
    checkpoint = TrainingCheckpoint(tmp_path)
    with pytest.raises(InputError, match=r"another model.*\(4, 5\).*\(4, 6\)"):
        checkpoint.restore(built(units=6), 2)
    with pytest.raises(InputError, match=r"another model.*variables"):
        checkpoint.restore(built(keras.optimizers.SGD), 2)


def test_a_model_must_be_built(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="must be built"):
        TrainingCheckpoint(tmp_path).restore(model, 2)


def test_a_missing_callback_is_named(tmp_path):
    early = keras.callbacks.EarlyStopping(monitor="loss")
    fit(built(), 1, TrainingCheckpoint(tmp_path, [early]), [early])
    with pytest.raises(InputError, match="EarlyStopping"):
        TrainingCheckpoint(tmp_path).restore(built(), 2)


def test_a_damaged_checkpoint_is_named(tmp_path):
    checkpoint = TrainingCheckpoint(tmp_path)
    fit(built(), 1, checkpoint)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"last\.safetensors cannot be used"):
        checkpoint.restore(built(), 2)
    write_tensors(checkpoint.path, {}, {"format": "other"})
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        checkpoint.restore(built(), 2)


GOOD = {"epochs": 1, "stopped": False, "callbacks": {}}


@pytest.mark.parametrize(
    "metadata",
    [
        {"state": ""},
        {"state": "[" * 100_000},
        {"state": "[]"},
        {"state": json.dumps(GOOD | {"epochs": "x"})},
        {"state": json.dumps(GOOD | {"epochs": -1})},
        {"state": json.dumps(GOOD | {"epochs": float("inf")})},
        {"state": json.dumps(GOOD | {"callbacks": 3})},
        {},
    ],
)
def test_a_hostile_checkpoint_is_named(tmp_path, metadata):
    checkpoint = TrainingCheckpoint(tmp_path)
    known = {"format": "keras_flowers.checkpoint", "version": "1"}
    write_tensors(checkpoint.path, {}, known | metadata)
    with pytest.raises(InputError, match=r"last\.safetensors cannot be used"):
        checkpoint.restore(built(), 2)


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_every_is_a_positive_integer(tmp_path, every):
    with pytest.raises(InputError, match="`every`"):
        TrainingCheckpoint(tmp_path, every=every)


def test_a_diverged_training_can_be_taken_up(tmp_path):
    early = keras.callbacks.EarlyStopping(monitor="loss", patience=9)

    def diverging():
        return keras.optimizers.SGD(1e20)

    model = built(diverging)
    checkpoint = TrainingCheckpoint(tmp_path, [early])
    fit(model, 2, checkpoint, [early])
    assert not np.isfinite(model.get_weights()[0]).all()
    second = built(diverging)
    assert TrainingCheckpoint(tmp_path, [early]).restore(second, 2) == 2
    assert_equal_to_the_bit(model, second)
