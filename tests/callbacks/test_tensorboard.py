import copy
import inspect
import json
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from event_reading import events_of, graphs_of, read_runs
from keras_flowers.callbacks import TensorBoard, TensorBoardOptions
from keras_flowers.callbacks.event_writer import EventWriter, KerasSummary
from keras_flowers.callbacks.tensorboard import _name_run

from keras_flowers import ConfusionMatrix, ImageClassifier, InputError

pytestmark = pytest.mark.usefixtures("with_charts")

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
NAMES = ("daisy", "ro$es\n", "tulips")
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
LABELS = (np.arange(24) % 3).astype(np.int32)
DATA = IMAGES, LABELS
PARTS = {
    "class_names": NAMES,
    "training_images": IMAGES[:4],
    "validation_data": DATA,
    "hparams": {"units": 4, "optimizer": "adam"},
    "configuration": {"epochs": 2, "nothing": math.nan},
    "images_per_epoch": 24,
    "options": TensorBoardOptions(images_every=2),
}


def small_model(jit_compile=False, **options):
    model = ImageClassifier(NAMES, image_size=(8, 8), hidden_units=(4,), seed=1)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=jit_compile, **options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    options = {"validation_data": DATA, "batch_size": 8, "shuffle": False} | options
    return model.fit(
        *DATA, epochs=epochs, callbacks=list(callbacks), verbose=0, **options
    )


def steps(runs, run, tag):
    return [step for step, _ in runs[run][tag]]


def test_everything_of_a_run_is_written(tmp_path):
    model = small_model()
    history = fit(model, TensorBoard(tmp_path, **PARTS)).history
    runs = read_runs(tmp_path)
    assert set(runs) == {".", "train", "validation"}

    assert set(runs["train"]) == {
        "epoch_loss",
        "epoch_accuracy",
        "epoch_learning_rate",
        "epoch_photos_per_second",
        "augmented_photos",
        "keras",
    }
    for tag in runs["train"].keys() - {"keras"}:
        assert steps(runs, "train", tag) == [0, 1]
    for name in ("loss", "accuracy"):
        for run, column in (("train", name), ("validation", f"val_{name}")):
            written = [value for _, value in runs[run][f"epoch_{name}"]]
            assert written == pytest.approx(history[column])
    rates = [value for _, value in runs["train"]["epoch_learning_rate"]]
    assert rates == pytest.approx([0.01, 0.01])
    assert all(v > 0 for _, v in runs["train"]["epoch_photos_per_second"])
    first, second = (image for _, image in runs["train"]["augmented_photos"])
    assert first.shape[1] > 2 * TensorBoardOptions.image_side
    assert not np.array_equal(first, second)

    said = model.predict(IMAGES, verbose=0).argmax(axis=1)
    validation = runs["validation"]
    for index, name in enumerate(("daisy", r"ro$es\n", "tulips")):
        right = np.sum((said == index) & (index == LABELS))
        assert validation[f"recall/{name}"][-1] == (1, pytest.approx(right / 8))
        precision = right / max(1, np.sum(said == index))
        assert validation[f"precision/{name}"][-1] == (1, pytest.approx(precision))
    assert steps(runs, "validation", "confusion_matrix") == [0, 1]
    assert steps(runs, "validation", "mistakes") == [1]

    ((_, text),) = runs["."]["configuration"]
    assert json.loads(text) == {"epochs": 2, "nothing": "NaN"}
    assert all(line.startswith("    ") for line in text.splitlines())


def test_hyperparameters_are_a_row_of_their_table(tmp_path, monkeypatch):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    monkeypatch.chdir(tmp_path)
    fit(small_model(), TensorBoard("mine/tensorboard", **PARTS))
    results = read_runs(Path("mine"))["tensorboard"]
    contents = {
        tag: HParamsPluginData.FromString(values[0][1])
        for tag, values in results.items()
        if tag.startswith("_hparams_")
    }
    assert all(len(results[tag]) == 1 for tag in contents)
    start = contents["_hparams_/session_start_info"].session_start_info
    assert start.hparams["units"].number_value == 4
    assert start.hparams["optimizer"].string_value == "adam"
    assert start.group_name == "mine"
    assert _name_run("a/b/first/tensorboard") == "first (a/b)"
    assert _name_run("a/03/execution_0") == "03/execution_0 (a)"
    dated = "runs/my-images-20261128-155000/tensorboard"
    assert _name_run(dated) == "1128-155000 my-images (runs)"
    # TensorBoard sorts the columns: these come before Keras's `epoch_accuracy`.
    validation = read_runs(Path("mine"))["tensorboard/validation"]
    for name in ("accuracy", "loss"):
        assert results[f"Validation {name}"] == validation[f"epoch_{name}"]
    end = contents["_hparams_/session_end_info"].session_end_info
    assert end.status == 1  # STATUS_SUCCESS


def test_the_graphs_show_the_layers(tmp_path):
    model = small_model()
    fit(model, TensorBoard(tmp_path, **PARTS), epochs=1)
    layers = {layer.name for layer in model.layers}
    shown = (
        value.tensor.string_val[0]
        for _, event in events_of(tmp_path)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "graph_keras_model"
    )
    (content,) = map(json.loads, shown)
    assert {layer["name"] for layer in content["config"]["layers"]} == layers
    if not ON_TENSORFLOW:
        assert graphs_of(tmp_path) == {}
        return
    ((run, (graph,)),) = graphs_of(tmp_path).items()
    assert run == "train"
    names = {node.name for node in graph.node}
    scopes = {tuple(name.split("/")[:2]) for name in names if "/" in name}
    assert scopes == {(model.name, layer.name) for layer in model.layers[1:]}
    inputs = {name.split(":")[0].strip("^") for n in graph.node for name in n.input}
    assert inputs <= names


def test_what_is_turned_off_is_not_written(tmp_path):
    nothing = TensorBoardOptions(
        augmented_images=0, confusion_matrix=False, class_scores=False, mistakes=0
    )
    callback = TensorBoard(
        tmp_path, write_graph=False, options=nothing, training_images=IMAGES
    )
    fit(small_model(), callback)
    runs = read_runs(tmp_path)
    assert set(runs) == {"train", "validation"}
    plain = {"epoch_loss", "epoch_accuracy"}
    assert set(runs["train"]) == plain | {"epoch_learning_rate"}
    assert {t for t in runs["validation"] if "_vs_" not in t} == plain
    assert graphs_of(tmp_path) == {}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_watched_run_equals_one_that_is_not(tmp_path, jit_compile):
    models, histories = [], []
    for callbacks in ([], [TensorBoard(tmp_path, update_freq=1, **PARTS)]):
        model = small_model(jit_compile)
        histories.append(fit(model, *callbacks, epochs=3).history)
        models.append(model)
    assert histories[0] == histories[1]
    for plain, watched in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(plain), keras.ops.convert_to_numpy(watched)
        )


def test_batch_steps_go_on_after_a_resume(tmp_path):
    model = small_model()
    fit(model, TensorBoard(tmp_path, update_freq="batch", **PARTS))
    model.save(tmp_path / "model.keras")
    assert steps(read_runs(tmp_path), "train", "batch_loss") == [1, 2, 3, 4, 5, 6]
    model = keras.models.load_model(tmp_path / "model.keras")
    callback = TensorBoard(tmp_path, update_freq="batch", **PARTS)
    fit(model, callback, initial_epoch=2, epochs=4)
    runs = read_runs(tmp_path)
    assert steps(runs, "train", "batch_loss") == list(range(1, 13))
    assert steps(runs, "train", "epoch_loss") == [0, 1, 2, 3]


def test_repeated_epochs_are_there_once(tmp_path):
    """A run that wrote more than its checkpoint knows of goes on from there."""
    model = small_model()
    fit(model, TensorBoard(tmp_path, update_freq=1, **PARTS), epochs=1)
    model.save(tmp_path / "model.keras")
    killed = TensorBoard(tmp_path, update_freq=1, **PARTS)
    fit(model, killed, initial_epoch=1, epochs=3)
    newest = max(
        (tmp_path / "train").glob("*tfevents*"),
        key=lambda path: path.stat().st_mtime_ns,
    )
    torn = newest.read_bytes()[:-5]  # as SIGKILL may leave it
    newest.write_bytes(torn)
    others = tmp_path / "train" / "events.out.tfevents.1.of-another-program"
    others.write_bytes(torn)

    model = keras.models.load_model(tmp_path / "model.keras")
    fit(
        model,
        TensorBoard(tmp_path, update_freq=1, **PARTS),
        initial_epoch=1,
        epochs=3,
    )
    assert others.read_bytes() == torn
    others.unlink()
    runs = read_runs(tmp_path)
    for run, tags in runs.items():
        for tag, values in tags.items():
            written = [step for step, _ in values]
            assert written == sorted(set(written)), (run, tag)
    assert steps(runs, "train", "epoch_loss") == [0, 1, 2]
    assert steps(runs, "train", "batch_loss") == list(range(1, 10))
    assert steps(runs, "train", "augmented_photos") == [0, 1]
    assert steps(runs, "validation", "mistakes") == [0, 1, 2]
    if ON_TENSORFLOW:
        assert len(graphs_of(tmp_path)["train"]) == 1


def test_a_start_from_the_first_epoch_begins_anew(tmp_path):
    callback = TensorBoard(tmp_path, **PARTS)
    fit(small_model(), callback, epochs=3)
    fit(small_model(), callback, epochs=2)
    runs = read_runs(tmp_path)
    assert steps(runs, "train", "epoch_loss") == [0, 1]
    assert steps(runs, "validation", "confusion_matrix") == [0, 1]
    assert len(runs["."]["configuration"]) == 1


def test_every_nth_batch(tmp_path):
    callback = TensorBoard(tmp_path, update_freq=2, write_steps_per_second=True)
    fit(small_model(), callback)
    runs = read_runs(tmp_path)
    for tag in ("batch_loss", "batch_accuracy", "batch_steps_per_second"):
        assert steps(runs, "train", tag) == [2, 4, 6]
    assert "epoch_steps_per_second" in runs["train"]


def test_copies_write_where_they_are_sent(tmp_path):
    """As KerasTuner does it: a copy for each trial, and another folder for it."""
    pipeline = [DATA]
    if ON_TENSORFLOW:
        import tensorflow as tf

        pipeline = tf.data.Dataset.from_tensor_slices(DATA).batch(8)
    original = TensorBoard(tmp_path / "all", **PARTS | {"validation_data": pipeline})
    for trial in ("1", "2"):
        callback = copy.deepcopy(original)
        callback.log_dir = str(tmp_path / "all" / trial)
        fit(small_model(), callback, epochs=1)
    assert type(original).__name__ == "TensorBoard"
    runs = read_runs(tmp_path / "all")
    assert "mistakes" in runs["1/validation"]
    assert set(runs) == {f"{t}{r}" for t in "12" for r in ("", "/train", "/validation")}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # KerasTuner 1.4.8
@pytest.mark.skipif(not ON_TENSORFLOW, reason="KerasTuner redirects it there only")
def test_keras_tuner_gives_each_trial_its_folder(tmp_path):
    import keras_tuner

    tuner = keras_tuner.RandomSearch(
        lambda hp: small_model() if hp.Int("size", 1, 2) else None,
        objective="val_accuracy",
        max_trials=2,
        directory=tmp_path,
        project_name="search",
    )
    parts = {name: value for name, value in PARTS.items() if name != "hparams"}
    tuner.search(
        *DATA,
        validation_data=DATA,
        epochs=1,
        verbose=0,
        callbacks=[TensorBoard(tmp_path / "logs", **parts)],
    )
    runs = read_runs(tmp_path / "logs")
    assert {run.split("/")[0] for run in runs} == {"0", "1"}
    assert "confusion_matrix" in runs["0/execution0/validation"]
    assert "_hparams_/session_start_info" in runs["1/execution0"]


def other_model(**metrics):
    """A model that knows nothing of this package."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.Sequential([keras.layers.RandomFlip(seed=3)]),
            keras.layers.Conv2D(3, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True), **metrics)
    return model


@pytest.mark.parametrize("metrics", [None, ["accuracy"], [ConfusionMatrix(3)]])
def test_it_serves_any_model(tmp_path, metrics):
    keras.utils.set_random_seed(0)
    model = other_model(metrics=metrics)
    options = TensorBoardOptions(images_every=1)
    parts = {"validation_data": DATA, "training_images": IMAGES, "options": options}
    fit(model, TensorBoard(tmp_path, **parts))
    runs = read_runs(tmp_path)
    said = model.predict(IMAGES, verbose=0).argmax(axis=1)
    for label in range(3):
        right = np.sum((said == label) & (label == LABELS))
        assert runs["validation"][f"recall/{label}"][-1] == (1, right / 8)
    assert steps(runs, "train", "augmented_photos") == [0, 1]


def test_images_that_nothing_changes_are_drawn_once(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    options = TensorBoardOptions(images_every=1)
    callback = TensorBoard(tmp_path, training_images=IMAGES, options=options)
    fit(model, callback, epochs=3)
    assert steps(read_runs(tmp_path), "train", "augmented_photos") == [0]


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, activation="sigmoid")

    def call(self, images):
        return self.dense(keras.ops.reshape(images, (-1, 8 * 8 * 3)))


def test_a_model_that_does_not_know_its_inputs_has_no_graph(tmp_path):
    model = Subclass()
    model.compile("adam", "binary_crossentropy")
    options = TensorBoardOptions(embedded_images=9)
    data = IMAGES.astype(np.float32), LABELS % 2
    callback = TensorBoard(
        tmp_path, validation_data=data, training_images=IMAGES, options=options
    )
    with pytest.warns(UserWarning, match="model graph was not written"):
        model.fit(*data, epochs=1, callbacks=[callback], verbose=0)
    runs = read_runs(tmp_path)
    assert {"recall/0", "recall/1"} <= set(runs["validation"])
    assert (tmp_path / "validation" / "embeddings.tsv").exists()


def test_the_projector_gets_images_and_classes(tmp_path):
    from PIL import Image

    model = small_model()
    options = TensorBoardOptions(embedded_images=10, mistakes=0)
    fit(model, TensorBoard(tmp_path, **PARTS | {"options": options}))
    folder = tmp_path / "validation"
    vectors = np.loadtxt(folder / "embeddings.tsv", delimiter="\t")
    assert vectors.shape == (6, 4)  # every fourth of 24
    hidden = keras.Model(model.inputs[0], model.layers[-1].input)
    expected = hidden.predict(IMAGES[::4], verbose=0)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4)
    header, *rows = (folder / "metadata.tsv").read_text().splitlines()
    assert header == "true\tpredicted\tis"
    said = model.predict(IMAGES[::4], verbose=0).argmax(axis=1)
    shown = ("daisy", r"ro$es\n", "tulips")
    for row, label, answer in zip(rows, LABELS[::4], said, strict=True):
        verdict = "right" if label == answer else "wrong"
        assert row.split("\t") == [shown[label], shown[answer], verdict]
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (3 * 48, 3 * 48)
    config = (folder / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "embeddings.tsv"' in config


def test_evaluate_alone_writes_no_epochs(tmp_path):
    small_model().evaluate(*DATA, callbacks=[TensorBoard(tmp_path)], verbose=0)
    assert not any("epoch" in t for tags in read_runs(tmp_path).values() for t in tags)


def test_keras_arguments_are_those_of_keras(tmp_path):
    callback = TensorBoard(tmp_path, 1, write_graph=False, write_images=True)
    assert callback.histogram_freq == 1
    fit(small_model(), callback, epochs=1)
    tags = read_runs(tmp_path)["train"]
    for ending in ("/histogram", "/image"):
        assert any(tag.endswith(ending) for tag in tags)
    assert {run for run, _ in events_of(tmp_path)} == {"train", "validation"}


def test_what_keras_calls_in_place_of_tf_summary_is_there():
    source = inspect.getsource(keras.callbacks.TensorBoard)
    called = set(re.findall(r"self\.summary\.(\w+)", source))
    assert {"create_file_writer", "scalar"} <= called
    assert called <= set(dir(KerasSummary(EventWriter(Path("unused")))))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"update_freq": 0}, "update_freq"),
        ({"update_freq": "sometimes"}, "update_freq"),
        ({"class_names": "daisy"}, "class_names"),
        ({"class_names": [1]}, "class_names"),
        ({"training_images": IMAGES[0]}, "training_images"),
        ({"hparams": ["units"]}, "hparams"),
        ({"hparams": {"units": (1, 2)}}, "hparams"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(InputError, match=f"`{named}`.*Received: {named}"):
        TensorBoard(**arguments)


@pytest.mark.parametrize(
    "options",
    [{"mistakes": -1}, {"images_every": 0}, {"image_side": 1.5}, {"class_scores": "x"}],
)
def test_wrong_options_are_named(options):
    (name,) = options
    with pytest.raises(InputError, match=f"`{name}`.*Received: {name}="):
        TensorBoardOptions(**options)


def test_batches_that_are_none_are_named(tmp_path):
    callback = TensorBoard(tmp_path, validation_data=[5])
    with pytest.raises(InputError, match="`validation_data`.*int"):
        fit(small_model(metrics=None), callback, epochs=1)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/logs/train` cannot be written"):
        fit(small_model(), TensorBoard(tmp_path / "file" / "logs"), epochs=1)
