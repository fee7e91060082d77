import json

import component_checks
import keras
import numpy as np
import pytest
from helpers import assert_same_weights, tiny_network
from keras import layers, ops

from keras_flowers import Backbone, ImageClassifier, ImageNetPreprocessing, InputError
from keras_flowers.layers.preprocessing import MODES
from keras_flowers.models.backbone_loading import load_weights
from keras_flowers.models.backbone_presets import backbone_names, named_network

NAMES = ("daisy", "roses", "tulips")


def images(count=4, size=(8, 8)):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, *size, 3), dtype=np.uint8)


def features(backbone, batch=None, training=False):
    batch = images(size=backbone.image_size) if batch is None else batch
    return ops.convert_to_numpy(backbone(batch, training=training))


def trained(backbone, epochs=2):
    """Trains a model with the backbone; returns the names of weights that changed."""
    model = keras.Sequential(
        [
            keras.Input((*backbone.image_size, 3)),
            backbone,
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    before = {v.path: ops.convert_to_numpy(v) for v in backbone.network.weights}
    batch = images(8, backbone.image_size)
    model.fit(batch, np.arange(8) % 3, epochs=epochs, verbose=0)
    return {
        v.path.rsplit("/", 2)[-2] + "/" + v.name
        for v in backbone.network.weights
        if not np.array_equal(before[v.path], ops.convert_to_numpy(v))
    }


def with_head(network, *head):
    outputs = network.outputs[0]
    for layer in (layers.GlobalAveragePooling2D(), *head):
        outputs = layer(outputs)
    return keras.Model(network.inputs, outputs)


# --- preprocessing


@pytest.mark.parametrize("mode", MODES)
def test_images_are_preprocessed_as_by_keras(mode):
    got = ImageNetPreprocessing(mode)(images())
    expected = keras.applications.imagenet_utils.preprocess_input(
        images().astype("float32"), data_format="channels_last", mode=mode
    )
    np.testing.assert_allclose(ops.convert_to_numpy(got), expected, 1e-6, 1e-6)
    assert not np.allclose(expected, images())


@pytest.mark.parametrize("mode", MODES)
def test_component_checks_of_the_preprocessing(tmp_path, mode):
    layer = ImageNetPreprocessing(mode)
    component_checks.config_covers_signature(layer)
    component_checks.config_round_trips(layer)
    component_checks.from_config_leaves_its_argument(layer)
    component_checks.has_registered_name(layer, "keras_flowers>ImageNetPreprocessing")
    component_checks.saves_and_loads(layer, images(), tmp_path)
    component_checks.symbolic_matches_eager(
        lambda **options: ImageNetPreprocessing(mode, **options), images()
    )
    component_checks.fits_where_a_keras_layer_does(
        lambda **options: ImageNetPreprocessing(mode, **options),
        keras.layers.Rescaling(1 / 255),
        images(),
    )


def test_an_unknown_preprocessing_is_named():
    with pytest.raises(InputError, match="`mode`.*Received: mode='pytorch'"):
        ImageNetPreprocessing("pytorch")


# --- a backbone as a component


@pytest.mark.parametrize("weights", ["own", None])
def test_component_checks(tmp_path, weights):
    def backbone(**options):
        return Backbone(tiny_network(), weights, seed=5, **options)

    layer = backbone()
    component_checks.config_covers_signature(layer)
    component_checks.config_round_trips(layer)
    component_checks.from_config_leaves_its_argument(layer)
    component_checks.has_registered_name(layer, "keras_flowers>Backbone")
    component_checks.saves_and_loads(layer, images(), tmp_path)
    component_checks.symbolic_matches_eager(backbone, images())
    network = tiny_network()
    component_checks.fits_where_a_keras_layer_does(
        lambda **options: Backbone(network, weights, seed=5, **options),
        keras.layers.GlobalAveragePooling2D(),
        images(),
    )


def test_mixed_precision_reaches_every_layer_and_keeps_the_weights():
    plain = Backbone(tiny_network())
    mixed = Backbone(tiny_network(), dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in mixed.network.layers[1:]} == {"bfloat16"}
    kernel = mixed.network.get_layer("stem").kernel
    assert keras.backend.standardize_dtype(kernel.dtype) == "float32"
    assert_same_weights(plain.network, mixed.network)
    got = ops.convert_to_numpy(ops.cast(mixed(images()), "float32"))
    np.testing.assert_allclose(got, features(plain), atol=0.05)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_model_gives_features(pooled):
    network = tiny_network(pooled=pooled)
    backbone = Backbone(network)
    expected = network.predict(images(), verbose=0)
    if not pooled:
        expected = expected.mean(axis=(1, 2))
    np.testing.assert_allclose(features(backbone), expected, rtol=1e-4, atol=1e-6)
    assert backbone.feature_size == 6
    assert backbone.image_size == (8, 8)
    assert backbone.pretrained_weights == "own"


def test_the_input_of_a_model_may_stand_in_a_list():
    network = with_head(tiny_network())
    assert isinstance(network.input, list)
    expected = network.predict([images()], verbose=0)
    np.testing.assert_allclose(features(Backbone(network)), expected, rtol=1e-5)


def test_a_sequential_model_need_not_have_been_called(tmp_path):
    dense = [layers.Flatten(), layers.Dense(3)]
    network = keras.Sequential([keras.Input((8, 8, 3)), *dense], name="plain")
    backbone = Backbone(network)
    expected = network.predict(images(), verbose=0)
    np.testing.assert_allclose(features(backbone), expected, rtol=1e-5)


def test_a_pretrained_backbone_is_frozen_and_gives_features_of_inference():
    backbone = Backbone(tiny_network())
    assert backbone.is_pretrained
    assert backbone.is_frozen
    # Keras's augmentation acts where nothing is said, and in training.
    for training in (None, True):
        np.testing.assert_array_equal(
            features(backbone, training=training), features(backbone)
        )
    assert trained(backbone) == set()


def test_a_backbone_without_weights_is_trained_as_a_whole():
    backbone = Backbone(tiny_network(), None)
    assert not backbone.is_pretrained
    assert not np.allclose(features(backbone, training=True), features(backbone))
    assert trained(backbone) >= {
        "stem/kernel",
        "norm/gamma",
        "norm/moving_mean",
        "last/kernel",
    }


def test_unfrozen_batch_normalization_keeps_its_statistics():
    backbone = Backbone(tiny_network())
    backbone.unfreeze()
    assert not backbone.is_frozen
    assert trained(backbone) == {
        "stem/kernel",
        "stem/bias",
        "norm/gamma",
        "norm/beta",
        "last/kernel",
        "last/bias",
    }
    np.testing.assert_array_equal(features(backbone, training=True), features(backbone))


def test_a_backbone_is_unfrozen_from_a_layer_on():
    backbone = Backbone(tiny_network())
    backbone.unfreeze("last")
    assert trained(backbone) == {"last/kernel", "last/bias"}
    with pytest.raises(InputError, match="Did you mean last.*Received: 'lost'"):
        backbone.unfreeze("lost")


def test_same_seed_same_weights():
    first, second, other, unseeded, again = (
        Backbone("small_convnet", image_size=(32, 32), seed=seed)
        for seed in (1, 1, 2, None, None)
    )
    assert_same_weights(first.network, second.network)
    kernels = [b.network.trainable_weights[0] for b in (first, other, unseeded, again)]
    kernels = [ops.convert_to_numpy(kernel) for kernel in kernels]
    for index, kernel in enumerate(kernels):
        for another in kernels[:index]:
            assert not np.array_equal(kernel, another)
    rebuilt = Backbone.from_config(first.get_config())
    assert_same_weights(rebuilt.network, first.network)


def test_a_frozen_backbone_is_shared_with_another_model():
    backbone = Backbone(tiny_network())
    other = backbone.for_another_model(seed=1)
    assert other.network is backbone.network
    assert other.is_frozen
    assert other.get_config() == backbone.get_config() | {"name": other.name}


@pytest.mark.parametrize("weights", ["own", None])
def test_a_backbone_that_is_trained_is_not_shared(weights):
    backbone = Backbone(tiny_network(), weights)
    if weights is not None:
        backbone.unfreeze("last")
    before = features(backbone)
    first, second = (backbone.for_another_model(seed=1) for _ in range(2))
    assert_same_weights(first.network, second.network)
    assert np.array_equal(features(first), before) is (weights is not None)
    assert "last/kernel" in trained(first)
    assert first.pretrained_weights == weights
    np.testing.assert_array_equal(features(backbone), before)


# --- what features depend on


def test_equal_networks_have_one_key():
    first, second = (Backbone(tiny_network()) for _ in range(2))
    names = [[layer.name for layer in b.network.layers] for b in (first, second)]
    assert names[0] != names[1]  # Keras numbers them
    assert first.key() == second.key()
    second.unfreeze()  # which changes no feature
    assert first.key() == second.key()


def test_a_saved_backbone_has_the_key_that_it_had(tmp_path):
    model = ImageClassifier(NAMES, backbone=tiny_network())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.backbone.key() == model.backbone.key()


@pytest.mark.parametrize("layer", ["stem", "norm"])
def test_another_weight_is_another_key(layer):
    backbone = Backbone(tiny_network())
    before = backbone.key()
    weights = backbone.network.get_layer(layer).get_weights()
    weights[-1][0] += 1e-3
    backbone.network.get_layer(layer).set_weights(weights)
    assert backbone.key() != before


def same_weights(first, second):
    return first.weights_fingerprint() == second.weights_fingerprint()


def same_architecture(first, second):
    return first.architecture_fingerprint() == second.architecture_fingerprint()


def test_weights_and_architecture_are_told_apart():
    first, other = Backbone(tiny_network(seed=3)), Backbone(tiny_network(seed=4))
    assert same_architecture(first, other)
    assert not same_weights(first, other)
    assert first.key() != other.key()
    half = Backbone(tiny_network(seed=3), dtype="mixed_bfloat16")
    assert same_weights(first, half)
    assert not same_architecture(first, half)
    assert first.key() != half.key()


def head_of(*layers_):
    """Returns a network of layers without weights."""
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inputs)
    for layer in layers_:
        x = layer(x)
    return keras.Model(inputs, x)


def pooled(layer):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(layer(inputs)))


def joined(order):
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inputs)
    both = layers.ReLU()(x), layers.Activation("tanh")(x)
    return keras.Model(inputs, layers.Subtract()([both[i] for i in order]))


@pytest.mark.parametrize(
    "make",
    [
        lambda other: head_of(layers.Activation("gelu" if other else "relu")),
        lambda other: head_of(layers.ReLU(max_value=6 if other else None)),
        lambda other: head_of(layers.ReLU(), *([layers.ReLU()] if other else [])),
        lambda other: head_of(layers.Rescaling(2 if other else 1)),
        lambda other: head_of(layers.Lambda(ops.tanh if other else ops.negative)),
        lambda other: pooled(layers.MaxPooling2D(2, strides=1 if other else 2)),
        lambda other: pooled(layers.ZeroPadding2D(((0, 1), (1, 0)) if other else 1)),
        lambda other: pooled(layers.RandomCrop(4, 5 if other else 4)),
        lambda other: pooled(Shift(2 if other else 1)),
        lambda other: pooled(keras.Sequential([Shift(2 if other else 1)])),
        lambda other: pooled(layers.Pipeline([Shift(2 if other else 1)])),
        lambda other: pooled(layers.ReLU() if other else layers.LeakyReLU()),
        lambda other: joined((1, 0) if other else (0, 1)),
    ],
)
def test_another_architecture_is_another_key(make):
    one, again, other = (Backbone(make(is_other)) for is_other in (0, 0, 1))
    assert one.key() == again.key()
    assert same_architecture(one, again)
    assert not same_architecture(one, other)
    assert one.key() != other.key()


class Shift(layers.Layer):
    """A layer of a user."""

    def __init__(self, by=1, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, inputs):
        return inputs + self.by

    def get_config(self):
        return {**super().get_config(), "by": self.by}


def test_what_changes_no_feature_is_not_part_of_the_architecture():
    def network(**arguments):
        inputs = keras.Input((8, 8, 3), name=arguments.pop("input_name", None))
        x = layers.RandomFlip(seed=arguments.pop("seed", None))(inputs)
        x = layers.Conv2D(2, 3, **arguments)(x)
        return Backbone(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))

    plain = network()
    for arguments in (
        {"name": "stem"},
        {"input_name": "pictures"},
        {"seed": 7},
        {"kernel_initializer": "zeros"},
        {"kernel_regularizer": "l2"},
        {"trainable": False},
    ):
        assert same_architecture(plain, network(**arguments)), arguments
    assert not same_architecture(plain, network(padding="same"))


def test_a_moved_module_and_a_new_setting_of_keras_change_no_key(monkeypatch):
    network = named_network("mobilenet_0.25").build((32, 32))
    before = Backbone(network).key()
    moved = "keras_flowers.elsewhere"
    monkeypatch.setattr(ImageNetPreprocessing, "__module__", moved)
    assert Backbone(network).key() == before
    get_config = layers.Conv2D.get_config
    init = layers.Conv2D.__init__

    def newer_init(self, *arguments, use_magic=False, **options):
        init(self, *arguments, **options)

    for value, is_same in ((False, True), (None, True), (True, False)):
        with monkeypatch.context() as patch:
            patch.setattr(layers.Conv2D, "__init__", newer_init)
            patch.setattr(
                layers.Conv2D,
                "get_config",
                lambda self, v=value: get_config(self) | {"use_magic": v},
            )
            assert (Backbone(network).key() == before) is is_same


# --- the names


@pytest.mark.parametrize("name", backbone_names())
def test_every_name_stands_for_a_network_of_keras(name):
    network = named_network(name)
    assert network.name == name
    assert network.side >= network.smallest_side
    if network.function is None:
        assert not network.has_imagenet_weights
    else:
        assert callable(getattr(keras.applications, network.function))
        assert network.preprocessing in (None, *MODES)


@pytest.mark.parametrize("name", ["mobilenet_0.25", "small_convnet"])
def test_a_network_is_as_the_table_says(name):
    row = named_network(name)
    size = (row.smallest_side, row.smallest_side)
    backbone = Backbone(name, None, image_size=size)
    assert features(backbone).shape == (4, row.feature_size)
    assert backbone.network.count_params() == row.parameters
    assert not backbone.is_pretrained
    assert not backbone.is_frozen
    assert backbone.network.name == name


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="no backbone 'mobilnet'.*mobilenet") as error:
        Backbone("mobilnet")
    assert "keras-flowers backbones" in str(error.value)
    with pytest.raises(InputError, match="no backbone 'MobileNetV2'.*mobilenet_v2"):
        Backbone("MobileNetV2")


@pytest.mark.parametrize(("name", "least"), [("mobilenet", 32), ("xception", 71)])
def test_images_may_be_too_small(name, least):
    with pytest.raises(InputError, match=f"at least {least}x{least}.*Received"):
        Backbone(name, None, image_size=(least, least - 1))


# --- weights


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """A MobileNet as Keras makes it, and its weights in files of all formats."""
    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, include_top=False, pooling="avg", weights=None
    )
    generator = np.random.default_rng(1)
    network.set_weights(
        [w + generator.uniform(0, 0.1, w.shape) for w in network.get_weights()]
    )
    folder = tmp_path_factory.mktemp("mobilenet")
    network.save(folder / "whole.h5")
    network.save(folder / "whole.keras")
    network.save_weights(folder / "only.weights.h5")
    expected = network.predict(
        keras.applications.mobilenet.preprocess_input(
            images(size=(32, 32)).astype("float32")
        ),
        verbose=0,
    )
    return folder, expected


@pytest.mark.parametrize("file", ["whole.h5", "whole.keras", "only.weights.h5"])
def test_weights_come_from_a_file(mobilenet, file):
    folder, expected = mobilenet
    backbone = Backbone("mobilenet_0.25", folder / file, image_size=(32, 32))
    np.testing.assert_allclose(features(backbone), expected, rtol=1e-4, atol=1e-5)
    assert backbone.is_frozen
    assert backbone.pretrained_weights == str(folder / file)
    rebuilt = Backbone.from_config(json.loads(json.dumps(backbone.get_config())))
    assert rebuilt.is_frozen
    rebuilt.load_pretrained_weights()
    np.testing.assert_array_equal(features(rebuilt), features(backbone))


def test_weights_that_do_not_fit_are_refused(mobilenet, tmp_path):
    folder, _ = mobilenet
    network = tiny_network()
    network.save(tmp_path / "tiny.keras")
    network.save(tmp_path / "tiny.h5")
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "text.keras").write_text("no weights")
    (tmp_path / "weights.npz").write_text("no weights")
    for path, reason in (
        (tmp_path / "tiny.keras", "do not fit mobilenet_0.25"),
        (tmp_path / "tiny.h5", "do not fit mobilenet_0.25"),
        (tmp_path / "text.h5", "do not fit mobilenet_0.25"),
        (tmp_path / "text.keras", "holds no model"),
        (tmp_path / "weights.npz", r"must be a \.h5 or \.keras file"),
        (tmp_path / "missing.h5", "no weights file"),
        (tmp_path, "no weights file"),
    ):
        with pytest.raises(InputError, match=reason) as error:
            Backbone("mobilenet_0.25", path, image_size=(32, 32))
        assert len(str(error.value).splitlines()) == 1
        assert path.name in str(error.value)
    with pytest.raises(InputError, match="do not fit tiny"):
        Backbone(tiny_network(), folder / "only.weights.h5")


def test_a_model_takes_weights_from_a_file(tmp_path):
    other = tiny_network(seed=9)
    other.save_weights(tmp_path / "other.weights.h5")
    backbone = Backbone(tiny_network(), tmp_path / "other.weights.h5")
    np.testing.assert_array_equal(features(backbone), features(Backbone(other)))


def failing_download(**options):
    # What Keras raises.
    raise Exception("URL fetch failure on https://storage.googleapis.com/x.h5: None")


def test_a_download_that_fails_says_how_to_do_without(monkeypatch):
    monkeypatch.setattr(keras.applications, "MobileNet", failing_download)
    with pytest.raises(
        InputError, match="mobilenet could not be downloaded: URL"
    ) as error:
        Backbone("mobilenet")
    first, second = str(error.value).splitlines()
    assert "https://storage.googleapis.com/x.h5" in first
    assert "--pretrained-weights FILE" in second


def test_weights_of_imagenet_are_those_that_keras_has(monkeypatch):
    asked = []

    def application(input_tensor, weights, **options):
        asked.append(weights)
        network = tiny_network((32, 32), pooled=True, seed=9)
        if weights is None:
            network = keras.models.clone_model(network)
        inputs = keras.utils.get_source_inputs(input_tensor)
        return keras.Model(inputs, network(input_tensor))

    monkeypatch.setattr(keras.applications, "MobileNet", application)
    backbone = Backbone("mobilenet_0.25", image_size=(32, 32))
    assert backbone.pretrained_weights == "imagenet"
    rebuilt = Backbone.from_config(backbone.get_config())
    assert not np.allclose(features(rebuilt), features(backbone))
    rebuilt.load_pretrained_weights()
    np.testing.assert_array_equal(features(rebuilt), features(backbone))
    assert asked == ["imagenet", "imagenet"]
    expected = Backbone(tiny_network((32, 32), pooled=True, seed=9))
    batch = images(size=(32, 32))
    np.testing.assert_allclose(
        features(backbone, batch),
        ops.convert_to_numpy(expected(batch.astype("float32") / 127.5 - 1)),
        rtol=1e-4,
        atol=1e-6,
    )


def test_some_networks_have_no_weights_of_imagenet():
    with pytest.raises(InputError, match="no ImageNet weights of small_convnet"):
        Backbone("small_convnet", "imagenet")
    with pytest.raises(InputError, match="has no ImageNet weights"):
        Backbone(tiny_network(), "imagenet")


def test_a_file_of_keras_for_efficientnet_means_what_it_means_to_keras(tmp_path):
    """Deviations stand in it, as variances; Keras divides by their root once more."""
    mean, deviations = [0.485, 0.456, 0.406], np.array([0.229, 0.224, 0.225])

    def network(*more):
        inputs = outputs = keras.Input((8, 8, 3))
        normalization = layers.Normalization(axis=-1)
        pooling = layers.GlobalAveragePooling2D()
        for layer in (layers.Rescaling(1 / 255), normalization, *more, pooling):
            outputs = layer(outputs)
        return keras.Model(inputs, outputs, name="efficientnet_b0"), normalization

    of_keras, normalization = network(layers.Rescaling(1 / np.sqrt(deviations)))
    normalization.set_weights([np.array(mean), deviations, np.array(0)])
    normalization.finalize_state()
    of_keras.save(tmp_path / "notop.h5")
    expected = of_keras.predict(images(), verbose=0)
    plain, normalization = network()
    load_weights(plain, str(tmp_path / "notop.h5"))
    got = plain.predict(images(), verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    plain.save(tmp_path / "mended.keras")
    load_weights(plain, str(tmp_path / "mended.keras"))  # is not mended twice
    np.testing.assert_array_equal(plain.predict(images(), verbose=0), got)


# --- files of models


def test_a_file_is_a_backbone(tmp_path):
    network = tiny_network()
    network.save(tmp_path / "tiny.keras")
    backbone = Backbone(tmp_path / "tiny.keras")
    np.testing.assert_array_equal(features(backbone), features(Backbone(network)))
    assert backbone.pretrained_weights == str(tmp_path / "tiny.keras")
    assert backbone.is_frozen
    rebuilt = Backbone.from_config(backbone.get_config())
    (tmp_path / "tiny.keras").rename(tmp_path / "moved.keras")
    with pytest.raises(InputError, match="no weights file.*tiny.keras"):
        rebuilt.load_pretrained_weights()


def test_a_path_may_be_relative_or_of_the_home_folder(tmp_path, monkeypatch):
    tiny_network().save(tmp_path / "tiny.keras")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("tiny.keras", "./tiny.keras", "~/tiny.keras"):
        assert Backbone(path).pretrained_weights == str(tmp_path / "tiny.keras")


def test_the_file_of_a_classifier_gives_its_backbone(tmp_path):
    model = ImageClassifier(NAMES, backbone=tiny_network())
    model.save(tmp_path / "model.keras")
    backbone = Backbone(tmp_path / "model.keras")
    np.testing.assert_array_equal(features(backbone), features(model.backbone))
    fresh = Backbone(tmp_path / "model.keras", None, seed=1)
    assert not fresh.is_frozen  # though it was in the file
    assert "stem/kernel" in trained(fresh)
    rebuilt = Backbone.from_config(backbone.get_config())
    rebuilt.load_pretrained_weights()
    np.testing.assert_array_equal(features(rebuilt), features(backbone))


def test_a_file_without_its_weights_begins_anew(tmp_path):
    tiny_network().save(tmp_path / "tiny.keras")
    first, second = (Backbone(tmp_path / "tiny.keras", None, seed=4) for _ in range(2))
    assert_same_weights(first.network, second.network)
    assert first.pretrained_weights is None
    kernels = [
        backbone.network.get_layer("stem").get_weights()[0]
        for backbone in (first, Backbone(tmp_path / "tiny.keras"))
    ]
    assert not np.array_equal(*kernels)


def test_weights_of_a_model_that_was_passed_in_cannot_be_loaded_again():
    rebuilt = Backbone.from_config(Backbone(tiny_network()).get_config())
    with pytest.raises(InputError, match=r"Save it to a \.keras file"):
        rebuilt.load_pretrained_weights()


@pytest.mark.parametrize("size", [(8, 8), (12, 9)])
def test_a_network_of_any_size_takes_the_size_asked_for(size):
    backbone = Backbone(tiny_network((None, None)), image_size=size)
    assert backbone.image_size == size
    assert Backbone(tiny_network((None, None))).image_size == (224, 224)
    with pytest.raises(InputError, match="cannot take images of 2x2 pixels"):
        Backbone(tiny_network((None, None)), image_size=(2, 2))


def test_a_network_of_one_size_takes_no_other():
    with pytest.raises(InputError, match="8x8 pixels only.*16"):
        Backbone(tiny_network(), image_size=(16, 16))


def two_inputs():
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, layers.Flatten()(layers.Add()(inputs)))


def two_outputs():
    network = tiny_network()
    return keras.Model(network.inputs, [*network.outputs, *network.inputs])


def gray():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, layers.Flatten()(inputs))


def text():
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(3)(inputs))


def sequence():
    network = tiny_network()
    outputs = layers.Reshape((16, 6))(network.outputs[0])
    return keras.Model(network.inputs, outputs)


def softmax():
    return with_head(tiny_network(), layers.Dense(3, activation="softmax"))


def sigmoid():
    return with_head(tiny_network(), layers.Dense(1), layers.Activation("sigmoid"))


def softmax_layer():
    return with_head(tiny_network(), layers.Dense(3), layers.Softmax())


def dense_classifier():
    return ImageClassifier(NAMES, image_size=(8, 8), hidden_units=(4,))


def lambda_layer():
    return with_head(tiny_network(), layers.Lambda(lambda x: x))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (two_inputs, "must have one input, images"),
        (two_outputs, "and one output"),
        (gray, "must have one input, images"),
        (text, "must have one input, images"),
        (sequence, r"it returns \(None, 16, 6\)"),
        (softmax, "a classifier, not .*: it ends in 3 probabilities"),
        (sigmoid, "a classifier"),
        (softmax_layer, "a classifier"),
        (dense_classifier, "a classifier, not .*: it ends in 3"),
        (lambda_layer, "cannot be loaded"),
    ],
)
def test_what_is_no_feature_extractor_is_refused(tmp_path, make, reason):
    model = make()
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(InputError, match=reason) as error:
        Backbone(path)
    assert len(str(error.value).splitlines()) == 1
    assert "model.keras" in str(error.value)
    if make is not lambda_layer:
        with pytest.raises(InputError, match=reason):
            Backbone(model)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    tiny_network().save_weights(tmp_path / "tiny.weights.h5")
    for path, reason in (
        (tmp_path / "text.keras", "holds no model"),
        (tmp_path / "tiny.weights.h5", "weights file needs a name"),
        (tmp_path / "missing.keras", "There is no file .*missing.keras"),
        (tmp_path, "There is no file"),
    ):
        with pytest.raises(InputError, match=reason):
            Backbone(path)
    with pytest.raises(InputError, match="feature extractor"):
        Backbone(keras.Sequential())
    for other in (3, b"mobilenet", None):
        with pytest.raises(InputError, match="`network` must be"):
            Backbone(other)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"image_size": (0, 8)}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"pretrained_weights": 3}, "pretrained_weights"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(InputError, match=f"`{named}`.*Received: {named}="):
        Backbone(tiny_network(), **arguments)
