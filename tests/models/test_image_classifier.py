import json

import component_checks
import keras
import numpy as np
import pytest
from helpers import assert_same_weights, tiny_network
from keras import layers, ops
from PIL import Image

import keras_flowers
from keras_flowers import Backbone, ImageAugmentation, ImageClassifier, InputError

NAMES = ("daisy", "roses", "tulips")

# The choice of XLA is part of what is tested.
pytestmark = pytest.mark.xla


def small_classifier(**arguments):
    arguments = {"image_size": (8, 8), "hidden_units": (6, 4), "seed": 1} | arguments
    return ImageClassifier(NAMES, **arguments)


def images(count=4, height=8, width=8, dtype=np.uint8):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, height, width, 3)).astype(dtype)


def outputs(model, batch):
    return ops.convert_to_numpy(model(batch, training=False))


def test_the_default_is_the_model_of_the_lesson():
    # Half of the memory: its weights take 200 MB in float32.
    model = ImageClassifier(["a", "b", "c", "d", "e"], dtype="float16")
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "ResizeAndRescale",
        "ImageAugmentation",
        "Flatten",
        "Dense",
        "Dense",
        "Dense",
    ]
    assert [layer.units for layer in model.layers[-3:]] == [256, 128, 5]
    assert model.layers[-3].kernel.shape == (256 * 256 * 3, 256)


def names_of(model):
    return [layer.name for layer in model.layers]


def test_layers_are_named():
    for _ in range(2):  # the same in each model of a process
        assert names_of(small_classifier(dropout=0.1)) == [
            "images",
            "resize_and_rescale",
            "augmentation",
            "flatten",
            "hidden_1",
            "dropout_1",
            "hidden_2",
            "dropout_2",
            "predictions",
        ]
    assert names_of(with_backbone()) == [
        "images",
        "resize_and_rescale",
        "backbone",
        "feature_normalization",
        "hidden_1",
        "dropout_1",
        "predictions",
    ]


@pytest.mark.parametrize(
    "taken", ["images", "resize_and_rescale", "hidden_1", "dropout_1", "predictions"]
)
def test_a_layer_that_is_passed_in_may_have_any_name(tmp_path, taken):
    augmentation = layers.RandomFlip(name=taken)
    for model in (
        small_classifier(augmentation=augmentation, dropout=0.1),
        with_backbone(Backbone(tiny_network(), name=taken)),
        with_backbone(augmentation=layers.RandomFlip(name=taken)),
    ):
        assert taken in names_of(model)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert names_of(loaded) == names_of(model)
        np.testing.assert_array_equal(
            outputs(loaded, images()), outputs(model, images())
        )


def test_a_backbone_may_have_layers_of_the_same_names():
    inputs = keras.Input((8, 8, 3), name="images")
    x = layers.Conv2D(3, 3, name="hidden_1")(inputs)
    network = keras.Model(inputs, layers.Conv2D(4, 3, name="predictions")(x))
    model = with_backbone(network)
    assert model.head().layers[-1] is model.layers[-1]
    assert model.get_layer("hidden_1").units == 6


def test_two_models_may_share_a_backbone():
    backbone = Backbone(tiny_network())
    first, second = (with_backbone(backbone, seed=seed) for seed in (1, 2))
    for model in (first, second):
        features = outputs(model.feature_extractor(), images())
        np.testing.assert_array_equal(
            outputs(model.head(), features), outputs(model, images())
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(8, 8), (13, 5), (1, 1)])
def test_images_of_any_size_and_dtype_become_probabilities(dtype, size):
    got = outputs(small_classifier(), images(3, *size, dtype=dtype))
    assert got.shape == (3, 3)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)


def test_uint8_and_float_images_give_the_same():
    model = small_classifier()
    np.testing.assert_array_equal(
        outputs(model, images()), outputs(model, images(dtype=np.float32))
    )


def test_same_seed_same_weights():
    first, second, other = (small_classifier(seed=s) for s in (1, 1, 2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [model.layers[-1].get_weights()[0] for model in (first, other)]
    assert not np.array_equal(*kernels)


def test_compile_with_nothing_given():
    model = small_classifier()
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss == "sparse_categorical_crossentropy"
    assert model.jit_compile is True
    history = model.fit(images(), np.array([0, 1, 2, 0]), verbose=0)
    assert set(history.history) == {"loss", "accuracy"}


def test_compile_keeps_what_is_given():
    model = small_classifier()
    model.compile(keras.optimizers.SGD(0.5), "mse", metrics=["mae"], jit_compile=False)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.loss == "mse"
    assert model.jit_compile is False


def test_xla_is_left_off_where_a_layer_does_not_support_it():
    model = small_classifier(augmentation=keras.layers.RandomRotation(0.1))
    model.compile()
    assert model.jit_compile is False


def test_where_xla_pays_is_decided_anew_on_loading():
    model = small_classifier()
    model.compile()
    assert model.get_compile_config()["jit_compile"] == "auto"
    model.compile(jit_compile=False)
    assert model.get_compile_config()["jit_compile"] is False


def test_augmentation_and_dropout_leave_the_initial_weights_alone():
    models = [
        small_classifier(augmentation=augmentation, dropout=dropout)
        for augmentation in (True, False)
        for dropout in (0.0, 0.5)
    ]
    for model in models[1:]:
        for a, b in zip(
            model.trainable_weights, models[0].trainable_weights, strict=True
        ):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(a), ops.convert_to_numpy(b)
            )


def test_training_lowers_the_loss():
    model = small_classifier(augmentation=False)
    model.compile(keras.optimizers.Adam(0.01))
    batch, labels = images(12), np.arange(12) % 3
    losses = model.fit(batch, labels, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_augmentation_acts_in_training_only():
    model = small_classifier(seed=3)
    batch = images()
    assert np.array_equal(outputs(model, batch), outputs(model, batch))
    trained = ops.convert_to_numpy(model(batch, training=True))
    assert not np.allclose(trained, outputs(model, batch))


@pytest.mark.parametrize(
    "augmentation", [True, False, ImageAugmentation("vertical", value_range=(0, 1))]
)
def test_a_saved_model_predicts_the_same(tmp_path, augmentation):
    model = small_classifier(augmentation=augmentation, dropout=0.1)
    model.compile(keras.optimizers.SGD(0.125))
    model.fit(images(), np.array([0, 1, 2, 0]), verbose=0)
    path = tmp_path / "flowers.keras"
    model.save(path)
    loaded = keras.models.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(outputs(model, images()), outputs(loaded, images()))
    assert loaded.class_names == NAMES
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    assert float(loaded.optimizer.learning_rate) == 0.125
    assert loaded.jit_compile is True
    loaded.fit(images(), np.array([0, 1, 2, 0]), verbose=0)


def test_custom_augmentation_survives_saving(tmp_path):
    model = small_classifier(augmentation=ImageAugmentation(rotation=0.3, seed=5))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.augmentation.rotation == 0.3


def test_component_checks():
    for model in (
        small_classifier(),
        small_classifier(augmentation=ImageAugmentation(seed=1), dropout=0.2),
    ):
        component_checks.config_covers_signature(model)
        component_checks.config_round_trips(model)
        component_checks.from_config_leaves_its_argument(model)
        component_checks.has_registered_name(model, "keras_flowers>ImageClassifier")


def test_mixed_precision_keeps_probabilities_in_float32(tmp_path):
    model = small_classifier(dtype="mixed_bfloat16")
    assert model.layers[-2].compute_dtype == "bfloat16"
    got = outputs(model, images())
    assert got.dtype == np.float32
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-2].compute_dtype == "bfloat16"
    np.testing.assert_array_equal(outputs(loaded, images()), got)


def test_integers_of_numpy_are_accepted():
    model = small_classifier(hidden_units=np.array([5, 4]))
    assert model.hidden_units == (5, 4)
    json.dumps(model.get_config())


def test_no_hidden_layer_is_a_linear_classifier():
    model = small_classifier(hidden_units=())
    assert [w.shape for w in model.trainable_weights] == [(8 * 8 * 3, 3), (3,)]


def test_classify_names_images(tmp_path):
    model = small_classifier()
    paths = []
    for index, image in enumerate(images(3, 20, 30)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(image).save(paths[-1])
    results = model.classify(paths, batch_size=2)
    assert [result.path for result in results] == [str(path) for path in paths]
    for result in results:
        assert list(result.probabilities) == sorted(
            NAMES, key=lambda name: -result.probabilities[name]
        )
        assert result.label == next(iter(result.probabilities))
        assert result.probability == max(result.probabilities.values())
        assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_classify_agrees_with_a_call_on_the_decoded_image(tmp_path):
    model = small_classifier()
    image = images(1)[0]
    Image.fromarray(image).save(tmp_path / "photo.png")
    (result,) = model.classify([tmp_path / "photo.png"])
    expected = outputs(model, image[None])[0]
    got = [result.probabilities[name] for name in NAMES]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_classify_takes_a_list():
    with pytest.raises(InputError, match="`paths`.*photo.jpg"):
        small_classifier().classify("photo.jpg")
    with pytest.raises(InputError, match="`batch_size`"):
        small_classifier().classify([], batch_size=0)
    for in_memory in (images(), images()[0], list(images()), 3):
        with pytest.raises(InputError, match="`paths` .* in memory use `predict`"):
            small_classifier().classify(in_memory)


def test_classify_names_the_file_that_is_no_image(tmp_path):
    (tmp_path / "note.jpg").write_text("not a photo")
    with pytest.raises(InputError, match="note.jpg"):
        small_classifier().classify([tmp_path / "note.jpg"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": ["same", "same"]}, "class_names"),
        ({"class_names": "daisy"}, "class_names"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"image_size": (0, 8)}, "image_size"),
        ({"hidden_units": (0,)}, "hidden_units"),
        ({"hidden_units": 5}, "hidden_units"),
        ({"hidden_units": "128"}, "hidden_units"),
        ({"class_names": None}, "class_names"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": "half"}, "dropout"),
        ({"augmentation": 3}, "augmentation"),
        ({"backbone": 3}, "backbone"),
        ({"seed": "x"}, "seed"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(InputError, match=f"`{named}`.*Received: {named}="):
        ImageClassifier(**({"class_names": NAMES} | arguments))


def test_an_argument_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="no argument `units`: did you mean `hidden_u"):
        small_classifier(units=(3,))
    # Keras would ignore both.
    for name in ("bogus", "activity_regularizer"):
        with pytest.raises(InputError, match=f"`ImageClassifier` .* argument `{name}`"):
            small_classifier(**{name: "l2"})
    model = small_classifier(name="mine", trainable=False, dtype="mixed_bfloat16")
    copy = ImageClassifier.from_config(model.get_config())
    assert (copy.name, copy.trainable) == ("mine", False)
    assert copy.dtype_policy.name == "mixed_bfloat16"


def test_classes_may_be_renamed(tmp_path):
    model = small_classifier()
    for wrong in (["x", "y"], ["x", "x", "y"], "xyz", [1, 2, 3]):
        with pytest.raises(InputError, match="`class_names`.*Received: class_names="):
            model.class_names = wrong
        assert model.class_names == NAMES
    model.class_names = ["x", "y", "z"]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.class_names == model.class_names == ("x", "y", "z")


def test_custom_object_scope_replaces_registration(tmp_path):
    model = small_classifier()
    model.save(tmp_path / "model.keras")
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    try:
        registered.clear()
        with keras_flowers.custom_object_scope():
            loaded = keras.models.load_model(tmp_path / "model.keras")
        by_argument = keras.models.load_model(
            tmp_path / "model.keras", custom_objects=keras_flowers.custom_objects()
        )
    finally:
        registered.update(kept)
    for other in (loaded, by_argument):
        np.testing.assert_array_equal(
            outputs(model, images()), outputs(other, images())
        )


# --- with a backbone


def with_backbone(backbone=None, **arguments):
    backbone = tiny_network() if backbone is None else backbone
    arguments = {"hidden_units": (6,), "seed": 1} | arguments
    return ImageClassifier(NAMES, backbone=backbone, **arguments)


def test_a_pretrained_backbone_changes_the_defaults():
    model = with_backbone()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "ResizeAndRescale",
        "Backbone",
        "LayerNormalization",
        "Dense",
        "Dropout",
        "Dense",
    ]
    assert model.dropout_rate == model.layers[-2].rate == 0.3
    assert not model.augments
    assert model.has_fixed_features
    assert model.image_size == (8, 8)
    assert (model.dropout, model.augmentation) == (None, None)


def test_a_backbone_that_is_trained_leaves_the_defaults():
    model = with_backbone(Backbone(tiny_network(), None))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "ResizeAndRescale",
        "ImageAugmentation",
        "Backbone",
        "Dense",
        "Dense",
    ]
    assert model.layers[2].value_range == (0, 255)
    assert model.augments
    assert model.dropout_rate == 0
    assert not model.has_fixed_features
    without = with_backbone(Backbone(tiny_network(), None), augmentation=False)
    without.backbone.network.trainable = False
    assert not without.has_fixed_features  # its dropout acts in training


@pytest.mark.parametrize("augmentation", [True, layers.RandomFlip()])
def test_features_are_not_fixed_where_images_change(augmentation):
    assert not with_backbone(augmentation=augmentation).has_fixed_features
    fine_tuned = with_backbone()
    fine_tuned.backbone.unfreeze("last")
    assert not fine_tuned.has_fixed_features


def test_a_backbone_gets_the_values_of_the_images():
    backbone = Backbone(tiny_network())
    model = with_backbone(backbone, image_size=(8, 8))
    got = model.feature_extractor().predict(images(height=20), verbose=0)
    resized = keras_flowers.ResizeAndRescale((8, 8), scale=1.0)(images(height=20))
    np.testing.assert_allclose(got, outputs(backbone, resized), rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_model_are_the_whole():
    model = with_backbone()
    extractor, head = model.feature_extractor(), model.head()
    assert not head.compiled
    features = outputs(extractor, images())
    assert features.shape == (4, 6)
    np.testing.assert_array_equal(outputs(head, features), outputs(model, images()))
    own = {id(v) for v in model.weights}
    for part in (extractor, head):
        assert {id(v) for v in part.weights} < own


def test_training_the_head_trains_the_model():
    model = with_backbone()
    model.compile(keras.optimizers.Adam(0.05))
    head = model.head(steps_per_execution=2)
    assert head.optimizer is model.optimizer
    assert head.steps_per_execution == 2
    before = outputs(model, images())
    features = outputs(model.feature_extractor(), images())
    labels = np.array([0, 1, 2, 0])
    history = head.fit(features, labels, epochs=2, verbose=0)
    assert set(history.history) == {"loss", "accuracy"}
    assert int(model.optimizer.iterations) == 2
    assert not np.allclose(outputs(model, images()), before)
    np.testing.assert_array_equal(outputs(head, features), outputs(model, images()))


def test_a_head_takes_a_loss_that_keras_does_not_know():
    def loss(true, predicted):
        return keras.losses.sparse_categorical_crossentropy(true, predicted) * 2

    model = with_backbone()
    model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
    head = model.head()
    assert head.loss is loss
    assert head.run_eagerly
    features = outputs(model.feature_extractor(), images())
    labels = np.array([0, 1, 2, 0])
    first, second = (
        m.evaluate(x, labels, verbose=0)
        for m, x in ((model, images()), (head, features))
    )
    assert first == pytest.approx(second, rel=1e-4)


def test_xla_is_left_to_keras_where_there_is_a_backbone():
    left_to_keras = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    left_to_keras.compile()
    model = with_backbone()
    model.compile()
    assert model.jit_compile is left_to_keras.jit_compile
    assert model.get_compile_config()["jit_compile"] == "auto"
    if keras.backend.backend() == "tensorflow":
        assert model.head().jit_compile is True
        assert model.head(steps=10).jit_compile is False
        assert model.head(steps=1_000_000).jit_compile is True
    for chosen in (True, False):
        model.compile(jit_compile=chosen)
        assert model.jit_compile is chosen
        assert model.head(steps=10).jit_compile is chosen
        assert model.head(steps=1_000_000).jit_compile is chosen


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_saved_model_with_a_backbone_predicts_the_same(tmp_path, dtype):
    keras.models.clone_model(tiny_network()).save(tmp_path / "tiny.keras")
    model = with_backbone(str(tmp_path / "tiny.keras"), dtype=dtype, dropout=0)
    (tmp_path / "tiny.keras").unlink()
    model.compile(keras.optimizers.SGD(0.125))
    labels = np.array([0, 1, 2, 0])
    model.fit(images(), labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(model, images()), outputs(loaded, images()))
    assert outputs(loaded, images()).dtype == np.float32
    assert loaded.backbone.network.layers[-1].compute_dtype == loaded.compute_dtype
    assert loaded.has_fixed_features
    assert loaded.get_config()["backbone"]["config"]["pretrained_weights"] == str(
        tmp_path / "tiny.keras"
    )
    for other in (model, loaded):
        other.fit(images(), labels, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_a_fine_tuned_model_stays_unfrozen_when_it_is_loaded(tmp_path):
    model = with_backbone()
    model.backbone.unfreeze("last")
    model.compile()
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    shapes = [v.shape for v in model.trainable_variables]
    assert [v.shape for v in loaded.trainable_variables] == shapes
    assert not loaded.has_fixed_features


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="what Keras exports from others goes through JAX's converter",
)
def test_a_model_with_a_backbone_is_exported_as_it_predicts(tmp_path):
    import tensorflow as tf

    model = with_backbone(augmentation=True)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    got = exported.serve(tf.constant(images().astype("float32")))
    np.testing.assert_allclose(got, outputs(model, images()), rtol=1e-4, atol=1e-6)


def test_a_whole_model_with_a_backbone_learns():
    model = with_backbone("small_convnet", image_size=(32, 32), dropout=0.1)
    model.compile(keras.optimizers.Adam(0.01))
    batch, labels = images(12, 32, 32) // 4, np.arange(12) % 3
    batch[labels == 1] += 100
    batch[labels == 2] += 190
    losses = model.fit(batch, labels, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("seed", [1, None])
def test_component_checks_with_a_backbone(seed):
    model = with_backbone(augmentation=ImageAugmentation(seed=1), seed=seed)
    component_checks.config_covers_signature(model)
    component_checks.config_round_trips(model)
    component_checks.from_config_leaves_its_argument(model)


def test_same_seed_same_weights_with_a_backbone():
    first, second, other = (
        with_backbone("small_convnet", image_size=(32, 32), seed=seed)
        for seed in (1, 1, 2)
    )
    assert_same_weights(first, second)
    kernels = [m.backbone.network.trainable_weights[0] for m in (first, other)]
    assert not np.array_equal(*map(ops.convert_to_numpy, kernels))


def test_a_backbone_decides_the_size_of_the_images():
    with pytest.raises(InputError, match=r"`image_size` must be.*\(8, 8\)"):
        with_backbone(Backbone(tiny_network()), image_size=(9, 9))
    with pytest.raises(InputError, match="no backbone 'mobilnet'"):
        with_backbone("mobilnet")


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_the_way_to_resize_is_saved_with_the_model(tmp_path, resize):
    model = ImageClassifier(
        ["a", "b"], image_size=(8, 8), hidden_units=(), resize=resize, seed=1
    )
    image = np.random.default_rng(0).integers(0, 256, (30, 12, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.resize == resize
    (classified,) = loaded.classify([tmp_path / "a.png"])
    (probabilities,) = model.predict(image[None], verbose=0)
    np.testing.assert_allclose(
        [classified.probabilities[name] for name in ("a", "b")],
        probabilities,
        atol=0.02,
    )
    stretched = ImageClassifier(
        ["a", "b"], image_size=(8, 8), hidden_units=(), seed=1
    ).predict(image[None], verbose=0)
    assert not np.allclose(stretched[0], probabilities, atol=1e-4)


@pytest.mark.parametrize("name", ["x.h5", "X.HDF5"])
def test_hdf5_is_refused_before_anything_is_written(tmp_path, name):
    model = small_classifier()
    with pytest.raises(InputError, match=r"\.keras file"):
        model.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_one_integer_is_a_square():
    assert small_classifier(image_size=9).image_size == (9, 9)


def test_a_model_is_not_quantized_in_place():
    model = ImageClassifier(["a", "b"], (8, 8), hidden_units=(2,))
    with pytest.raises(InputError, match="export_model"):
        model.quantize("int8")
