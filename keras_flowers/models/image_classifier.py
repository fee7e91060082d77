"""`ImageClassifier`: from raw images to the probabilities of named classes."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras_flowers_runtime.classification import Classification as Classification
from keras_flowers_runtime.classification import (
    UnreadableImage,
    classify_files,
    raise_thresholds,
    require_readable,
)
from keras_flowers_runtime.images import Resize

from keras_flowers.argument_checks import check_image_size, check_integer
from keras_flowers.distribution import (
    build_optimizer,
    explaining_indivisible_batches,
    has_strategy,
    strategy_scope,
)
from keras_flowers.errors import InputError
from keras_flowers.layers.augmentation import (
    AUGMENTATION_STRENGTHS,
    ImageAugmentation,
)
from keras_flowers.layers.preprocessing import ResizeAndRescale
from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.layers.views import average_views
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.classifier_arguments import (
    HIDDEN_UNITS,
    augmentation_options,
    augments,
    check_augmentation,
    check_backbone,
    check_class_names,
    check_dropout,
    check_hidden_units,
    check_keras_arguments,
    check_paths,
    choose_dropout_rate,
    choose_image_size,
    derive_seed,
    is_pretrained_backbone,
)
from keras_flowers.models.classifying import build_classifying_function
from keras_flowers.models.frozen_prediction import (
    PredictionDifference,
    choose_precision,
    load_spread,
)
from keras_flowers.models.heads import (
    build_head_layers,
    linear_head_optimizer,
    set_initial_bias,
)
from keras_flowers.models.label_checks import check_training_data
from keras_flowers.models.label_modes import DEFAULT_THRESHOLD, choose_label_mode
from keras_flowers.models.label_smoothing import (
    SharingModel,
    check_label_smoothing,
    smooth_loss,
)
from keras_flowers.models.temperature import check_temperature, check_thresholds
from keras_flowers.models.unknown import UnknownDetector
from keras_flowers.registration import register

# Training steps of a head: compiling it takes two seconds, and then saves half a
# millisecond in each.
_XLA_PAYS_FROM = 5_000
# In the configuration of a file: whether its optimizer has more than its settings.
OPTIMIZER_IS_BUILT = "optimizer_is_built"


@register("ImageClassifier")
class ImageClassifier(keras.Model):
    """An image classifier that carries its preprocessing and its class names.

    Images are resized and rescaled, augmented (in training only), and flattened or
    turned into features by a backbone. One `Dense` layer with ReLU per entry of
    `hidden_units` follows, and a softmax over the classes. The defaults are 256 and
    128 units on images of 256x256 pixels, without a backbone.

    A pretrained backbone has a linear head by default: its features are standardized,
    and a softmax that starts from zero follows. `train` measures the statistics that
    this takes on the training images; in your own program, call `adapt`. With hidden
    layers, the features are normalized instead, those of each image separately.

    With `multi_label`, an image may have several labels, or none: the last layer is a
    sigmoid for each class, and labels are float32 `(batch, classes)`, 0 or 1.

    The layers are named: `images`, `resize_and_rescale`, `augmentation`, `flatten` or
    `backbone`, `feature_standardization` or `feature_normalization`, `hidden_1`,
    `dropout_1` and so on, and `predictions`. A layer or a `Backbone` that you pass
    keeps its own name.

    For a copy with new weights, use `ImageClassifier.from_config(model.get_config())`:
    `keras.models.clone_model` returns a plain Keras model without the class names.

    Args:
        class_names: Strings, at least two, all different; position `i` is the name
            of label `i`.
        image_size: Pair of integers, `(height, width)` in pixels of the images that
            the network sees; `None` for the default size of the backbone, or
            256x256 without one.
        hidden_units: Integers, the width of each hidden layer; may be empty. `None`
            is the linear head with a pretrained backbone, unless `dropout` is given,
            and 256 and 128 units otherwise.
        dropout: Float from 0 to below 1, the fraction of units to drop after each
            hidden layer. `None` is 0.3 for hidden layers behind a pretrained backbone,
            whose features are easily memorized, and 0 otherwise.
        augmentation: `True` for the default `ImageAugmentation`, `False` or `"none"`
            for none, `"light"` or `"strong"` as in `AUGMENTATION_STRENGTHS`, or any
            layer that maps images to images, with values 0..1, or 0..255 with a
            backbone. `None` is `False` for a pretrained backbone, whose
            features can then be computed once for all epochs, and `True` otherwise.
        seed: Integer or `None`. With an integer the initial weights, the
            augmentation and the dropout are the same for every new model.
        backbone: A `Backbone`, or what it takes as `network`: a name such as
            `"mobilenet_v2"` or `"small_convnet"`, a `.keras` file, a Keras model.
            `None` for none.
        resize: `"stretch"` ignores the aspect ratio of images; `"crop"` keeps it and
            cuts off what is too much on both sides; `"pad"` keeps it and adds black
            borders. Use the value of the `ImageDatasetLoader` of the training images.
        temperature: Float above 0 by which the logits are divided outside of training;
            1 changes nothing. `train` chooses it so that the model is right as often
            as it is confident.
        multi_label: Whether an image may have several labels, or none.
        thresholds: With `multi_label`, the lowest probability with which each class is
            a label of an image, a number from 0 to 1 for each class. `None` is 0.5.
            `train` chooses those with the highest F1 on the validation images.
        **kwargs: `name`, `dtype` (a dtype policy such as `"mixed_bfloat16"`) and
            `trainable`, as for `keras.Model`.

    Input shape:
        `(batch, height, width, 3)`, of any size and any integer or float dtype,
        values 0..255.

    Output shape:
        `(batch, len(class_names))`, float32, probabilities that sum to 1; with
        `multi_label`, each of them is that of a label by itself.

    Raises:
        InputError: If an argument is not as described above.

    Attributes:
        unknown_detector: What tells images of none of the classes, or `None`. `train`
            sets it, and a saved file has it. With `multi_label` there is none: an image
            without a label shows none of the classes.
        label_mode: What the labels of images are.

    Example:
    ```python
    model = keras_flowers.ImageClassifier(["daisy", "roses", "tulips"])
    model.compile()
    model.fit(images, labels)
    model.save("flowers.keras")
    ```
    """

    optimizer: Any

    def __init__(
        self,
        class_names: Sequence[str],
        image_size: tuple[int, int] | None = None,
        hidden_units: Sequence[int] | None = None,
        dropout: float | None = None,
        augmentation: bool | str | keras.layers.Layer | None = None,
        seed: int | None = None,
        backbone: Backbone | str | os.PathLike[str] | keras.Model | None = None,
        resize: Resize = "stretch",
        temperature: float = 1.0,
        multi_label: bool = False,
        thresholds: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        # === Arguments ===
        check_keras_arguments(kwargs, _argument_names())
        class_names = check_class_names(class_names)
        label_mode = choose_label_mode(multi_label)
        thresholds = check_thresholds(thresholds, len(class_names), multi_label)
        if image_size is not None:
            image_size = check_image_size(image_size)
        if hidden_units is not None:
            hidden_units = check_hidden_units(hidden_units)
        if dropout is not None:
            dropout = check_dropout(dropout)
        if seed is not None:
            seed = check_integer("seed", seed)
        temperature = check_temperature(temperature)
        check_augmentation(augmentation)
        check_backbone(backbone)
        dtype = kwargs.get("dtype")

        # === Layers ===
        if backbone is not None and not isinstance(backbone, Backbone):
            backbone = Backbone(
                backbone,
                image_size=image_size,
                seed=derive_seed(seed, "backbone"),
                dtype=dtype,
                name="backbone",
            )
        is_pretrained = backbone is not None and backbone.is_pretrained
        image_size = choose_image_size(backbone, image_size)
        is_linear = is_pretrained and hidden_units is None and dropout is None
        if hidden_units is None and not is_linear:
            hidden_units = HIDDEN_UNITS
        passed_names = {
            layer.name
            for layer in (augmentation, backbone)
            if isinstance(layer, keras.layers.Layer)
        }

        def unused(name: str) -> str:
            """Returns the name, changed where a layer that was passed in has it."""
            return f"{name}_of_classifier" if name in passed_names else name

        # Networks expect different values, and compute them from 0..255 themselves.
        highest = 1 if backbone is None else 255
        resize_and_rescale = ResizeAndRescale(
            image_size,
            scale=highest / 255,
            resize=resize,
            dtype=dtype,
            name=unused("resize_and_rescale"),
        )
        image_layers: list[keras.layers.Layer] = [resize_and_rescale]
        if isinstance(augmentation, keras.layers.Layer):
            image_layers.append(augmentation)
        elif augments(augmentation, is_pretrained=is_pretrained):
            image_layers.append(
                ImageAugmentation(
                    value_range=(0, highest),
                    seed=derive_seed(seed, "augmentation"),
                    dtype=dtype,
                    name=unused("augmentation"),
                    **augmentation_options(augmentation),
                )
            )
        to_features = backbone or keras.layers.Flatten(
            dtype=dtype, name=unused("flatten")
        )
        head_layers = build_head_layers(
            len(class_names),
            hidden_units,
            activation=label_mode.activation,
            dropout_rate=0.0 if is_linear else choose_dropout_rate(dropout, backbone),
            is_linear=is_linear,
            is_pretrained=is_pretrained,
            seed=seed,
            dtype=dtype,
            unused=unused,
        )

        # === Functional model ===
        images = keras.Input((None, None, 3), name=unused("images"))
        features = _apply([*image_layers, to_features], images)
        predictions = _apply(head_layers, features)
        super().__init__(inputs=images, outputs=predictions, **kwargs)
        if dtype is not None:
            # Keras ignores the argument for a functional model.
            self.dtype_policy = dtype

        # === Config ===
        self._class_names = class_names
        self.image_size = image_size
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.augmentation = augmentation
        self.seed = seed
        self.backbone = backbone
        self.resize = resize
        self.label_smoothing = 0.0
        self.label_mode = label_mode
        self._thresholds = thresholds
        self._temperature = temperature
        self.unknown_detector: UnknownDetector | None = None
        self.features = features
        self._omits_optimizer = False
        # Names, not layers: Keras saves weights under the attributes that hold layers.
        self._head_layer_names = tuple(layer.name for layer in head_layers)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any
    ) -> Any:
        """Returns the probabilities; outside of training, with the temperature."""
        outputs = super().call(inputs, training=training, mask=mask, **kwargs)
        if training or self.temperature == 1:
            return outputs
        return self.scale_probabilities(outputs)

    def scale_probabilities(self, probabilities: Any) -> Any:
        """Returns the probabilities of the last layer with the temperature.

        Args:
            probabilities: Float `(batch, classes)`.
        """
        if self.temperature == 1:
            return probabilities
        return self.label_mode.scale_probabilities(probabilities, self.temperature)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Position `i` is the name of label `i`; may be set, to as many names."""
        return self._class_names

    @class_names.setter
    def class_names(self, values: Sequence[str]) -> None:
        names, classes = check_class_names(values), len(self._class_names)
        if len(names) != classes:
            raise InputError(
                f"`class_names` must be {classes} different strings, one for each "
                f"class of the model. Received: class_names={values!r}"
            )
        self._class_names = names

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.label_mode.is_multi_label

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """The lowest probability of each label, or `None` for 0.5; may be set."""
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float] | None) -> None:
        classes = len(self.class_names)
        self._thresholds = check_thresholds(values, classes, self.multi_label)

    @property
    def label_thresholds(self) -> tuple[float, ...] | None:
        """The lowest probability of each label; `None` without `multi_label`."""
        if not self.multi_label:
            return None
        return self.thresholds or (DEFAULT_THRESHOLD,) * len(self.class_names)

    @property
    def temperature(self) -> float:
        """What the logits are divided by outside of training; may be set."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check_temperature(value)
        # They hold the temperature as a constant.
        self.predict_function = None
        self.test_function = None

    @property
    def unknown_threshold(self) -> float | None:
        """The lowest probability of images of known classes, if `train` found one."""
        detector = self.unknown_detector
        return None if detector is None else detector.probability_threshold

    @property
    def augments(self) -> bool:
        """Whether images are changed at random in training."""
        return augments(
            self.augmentation, is_pretrained=is_pretrained_backbone(self.backbone)
        )

    @property
    def has_linear_head(self) -> bool:
        """Whether a softmax on standardized features is the whole head."""
        return self.hidden_units is None

    @property
    def dropout_rate(self) -> float:
        """The fraction of units dropped after each hidden layer."""
        if self.has_linear_head:
            return 0.0
        return choose_dropout_rate(self.dropout, self.backbone)

    @property
    def has_fixed_features(self) -> bool:
        """Whether an image has the same features in every epoch."""
        backbone = self.backbone
        if backbone is None or self.augments:
            return False
        return backbone.is_pretrained and backbone.is_frozen

    def adapt(self, features: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Prepares a linear head for the training images.

        It measures the statistics with which features are standardized. With
        `multi_label`, an untrained head starts at the frequencies of the labels:
        otherwise it first learns that labels are rare, from features that say nothing
        about it. Without a linear head there is nothing to prepare.

        Args:
            features: What the backbone returns for the training images, float
                `(images, feature_size)`.
            labels: Their labels: with `multi_label`, float `(images, classes)` of 0 and
                1; otherwise integers `(images,)`, which are ignored. `None` if they are
                not known.
        """
        if not self.has_linear_head:
            return
        for name in self._head_layer_names:
            layer = self.get_layer(name)
            if isinstance(layer, FeatureStandardization):
                layer.adapt(features)
        if self.multi_label and labels is not None:
            set_initial_bias(self.layers[-1], labels)

    @property
    def head_layer_names(self) -> tuple[str, ...]:
        """Names of the layers after the features; the last one has the classes."""
        return self._head_layer_names

    def feature_extractor(self) -> keras.Model:
        """Returns the part from images to the features of the backbone.

        It shares its weights with this model. Without a backbone the features are the
        rescaled values of the pixels.
        """
        with strategy_scope(self):
            return keras.Model(self.inputs[0], self.features, name="feature_extractor")

    def head(
        self, steps_per_execution: int = 1, steps: int | None = None
    ) -> keras.Model:
        """Returns the part from the features of the backbone to the probabilities.

        It shares its weights with this model. It is compiled as this model is, with the
        same optimizer, so that training it trains this model. Its probabilities are
        those of training, without the temperature.

        Args:
            steps_per_execution: As for `keras.Model.compile`; 1 under a
                `tf.distribute.Strategy`.
            steps: How many training steps there will be, for the choice of
                `jit_compile="auto"`: XLA pays from a few thousand on.
        """
        layers = [self.get_layer(name) for name in self._head_layer_names]
        features = keras.Input(self.features.shape[1:], name="features")
        with strategy_scope(self):
            head = SharingModel(features, _apply(layers, features), name="head")
            if self.compiled:
                head.compile(
                    **self._head_compile_arguments(layers, steps_per_execution, steps)
                )
        return head

    def _head_compile_arguments(
        self,
        layers: Sequence[keras.layers.Layer],
        steps_per_execution: int,
        steps: int | None,
    ) -> dict[str, Any]:
        arguments = self.compile_arguments()
        # Several steps in a row fail under a strategy, with an error of TensorFlow.
        several = 1 if has_strategy(self) else steps_per_execution
        arguments["steps_per_execution"] = several
        if arguments["jit_compile"] == "auto":
            pays = _choose_jit_compile(self, layers, arguments)
            is_short = steps is not None and steps < _XLA_PAYS_FROM
            arguments["jit_compile"] = False if pays is True and is_short else pays
        return arguments

    def with_augmentation(self, strength: str) -> keras.Model:
        """Returns this model with another augmentation of the images in training.

        It shares its weights with this model. It is compiled as this model is, with the
        same optimizer, so that training it trains this model.

        Args:
            strength: A name in `AUGMENTATION_STRENGTHS`, or `"none"`.
        """
        images = keras.Input((None, None, 3), name="images")
        names = self._head_layer_names
        resize, *_, to_features = (
            layer for layer in self.layers[1:] if layer.name not in names
        )
        layers = [resize, to_features, *(self.get_layer(name) for name in names)]
        if strength != "none":
            augmentation = ImageAugmentation(
                value_range=(0, 255 if self.backbone else 1),
                seed=derive_seed(self.seed, "augmentation"),
                dtype=self.dtype_policy.name,
                name="fine_tuning_augmentation",
                **AUGMENTATION_STRENGTHS[strength],
            )
            layers.insert(1, augmentation)
        with strategy_scope(self):
            model = SharingModel(images, _apply(layers, images), name=self.name)
            if self.compiled:
                model.compile(**self.compile_arguments())
                self._let_augmentation_compile(model)
        return model

    def _let_augmentation_compile(self, model: keras.Model) -> None:
        """Compiles the augmentation with XLA where the whole model is not.

        It takes a sixth of the time then, on a CPU, and convolutions take longer.
        """
        for layer in model.layers:
            if isinstance(layer, ImageAugmentation):
                layer.jit_compile = (
                    self._jit_compile_is_auto
                    and not model.jit_compile
                    and not has_strategy(self)
                )

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        label_smoothing: float = 0.0,
        metrics: Any = "auto",
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures training; every argument has a sensible default.

        Args:
            optimizer: As for `keras.Model.compile`. `"auto"` is Adam, and for a linear
                head SGD with momentum and weight decay.
            loss: As for `keras.Model.compile`. `"auto"` is the cross-entropy, which
                takes integer labels; with `multi_label`, a `MultiLabelCrossentropy`.
            label_smoothing: Fraction of each label that is given to all classes
                alike, from 0 to below 1. It acts on the loss in training; the
                validation loss is that of the labels as they are.
            metrics: As for `keras.Model.compile`. `"auto"` is the accuracy, as a
                `ConfusionMatrix`, which also counts which classes were confused. With
                `multi_label`, it is `binary_accuracy`, the fraction of labels that are
                right at 0.5, and the `MeanAveragePrecision`.
            jit_compile: `True`, `False` or `"auto"`: compile with XLA where it pays.
                Dense models train faster with it on every device, so on TensorFlow
                `"auto"` is `True` unless a layer, such as a Keras augmentation, does
                not support it. Convolutions are slower with it on a CPU, so with a
                backbone, and on other backends, Keras decides: it uses XLA on
                accelerators.
            **kwargs: The other arguments of `keras.Model.compile`.
        """
        label_smoothing = check_label_smoothing(label_smoothing)
        is_auto = jit_compile == "auto"
        if is_auto:
            jit_compile = _choose_jit_compile(self, self.layers, kwargs)
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = "adam"
            if self.has_linear_head:
                penalty = self.label_mode.head_penalty
                optimizer = linear_head_optimizer(penalty=penalty)
        with strategy_scope(self):
            optimizer = keras.optimizers.get(optimizer)
            if self.has_linear_head and optimizer.weight_decay and not optimizer.built:
                # The bias holds how frequent a class is: it is not to become smaller.
                optimizer.exclude_from_weight_decay([self.layers[-1].bias])
            if isinstance(loss, str) and loss == "auto":
                loss = self.label_mode.loss()
            if isinstance(metrics, str) and metrics == "auto":
                metrics = self.label_mode.metrics(len(self.class_names))
            super().compile(
                optimizer=optimizer,
                loss=loss,
                metrics=metrics,
                jit_compile=jit_compile,
                **kwargs,
            )
        self._jit_compile_is_auto = is_auto
        self.label_smoothing = label_smoothing
        self._let_augmentation_compile(self)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss, with smoothed labels in training."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training and self.label_smoothing:
            return smooth_loss(loss, y, y_pred, sample_weight, self.label_smoothing)
        return loss

    def compile_arguments(self) -> dict[str, Any]:
        """Returns the arguments of `compile`, for another model with these weights.

        Optimizer and loss are those of this model, metrics are new ones.
        """
        own = {"optimizer": self.optimizer, "loss": self.loss}
        config = {k: v for k, v in self.get_compile_config().items() if k not in own}
        return {**keras.saving.deserialize_keras_object(config), **own}

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model; see `keras.Model.fit`.

        Raises:
            InputError: If an array has a label that is not from 0 to the number of
                classes - 1, or a dataset of an `ImageDatasetLoader` has other classes
                than the model. Or if the devices of `keras.distribution` cannot share
                a batch equally, which `predict` also raises.
        """
        arguments = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        self._check_training_data(arguments)
        with explaining_indivisible_batches(self, arguments):
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Returns loss and metrics; see `keras.Model.evaluate`.

        Raises:
            InputError: As `fit` does.
        """
        arguments = inspect.signature(super().evaluate).bind(*args, **kwargs).arguments
        self._check_training_data(arguments)
        with explaining_indivisible_batches(self, arguments):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the probabilities of images; see `keras.Model.predict`."""
        arguments = inspect.signature(super().predict).bind(*args, **kwargs).arguments
        with explaining_indivisible_batches(self, arguments):
            return super().predict(*args, **kwargs)

    def _check_training_data(self, arguments: Mapping[str, Any]) -> None:
        loss = self.loss if self.compiled else None
        check_training_data(
            arguments, self.class_names, loss, multi_label=self.multi_label
        )

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`; `"auto"` is decided anew on loading."""
        config: dict[str, Any] = super().get_compile_config()
        if config and self._jit_compile_is_auto:
            config["jit_compile"] = "auto"
        if config and self.label_smoothing:
            config["label_smoothing"] = self.label_smoothing
        if config and self._omits_optimizer:
            config[OPTIMIZER_IS_BUILT] = False
        return config

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refuses to quantize the model in place.

        Raises:
            InputError: Always: a file of a quantized model could not be loaded.
        """
        del args, kwargs
        raise InputError(
            "An ImageClassifier is quantized when it is exported: see "
            '`keras_flowers.export.export_model(..., quantize="int8")`.'
        )

    def save(
        self,
        filepath: Any,
        *args: Any,
        include_optimizer: bool = True,
        **kwargs: Any,
    ) -> None:
        """Saves the model as a `.keras` file.

        Args:
            filepath: The file to write or to replace.
            *args: As for `keras.Model.save`.
            include_optimizer: Whether to save the state of the optimizer, which is up
                to twice as large as the weights. The loaded model is compiled either
                way; only without that state, the optimizer starts afresh.
            **kwargs: As for `keras.Model.save`.

        Raises:
            InputError: For `.h5` and `.hdf5`: Keras writes such files, but cannot load
                a model of this class from them.
        """
        if os.fspath(filepath).lower().endswith((".h5", ".hdf5")):
            raise InputError(
                "An ImageClassifier is saved as a .keras file: Keras cannot load it "
                f"from HDF5. Received: filepath={os.fspath(filepath)!r}"
            )
        is_built = self.compiled and self.optimizer.built
        if not self.compiled or (include_optimizer and is_built):
            super().save(filepath, *args, **kwargs)
            return
        optimizer: Any = self.optimizer
        settings = keras.optimizers.serialize(optimizer)
        with strategy_scope(self):
            self.optimizer = keras.optimizers.deserialize(settings)
        self._omits_optimizer = True
        try:
            super().save(filepath, *args, **kwargs)
        finally:
            self.optimizer = optimizer
            self._omits_optimizer = False

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as the saved one was; called by `load_model`."""
        config = dict(config)
        is_built = config.pop(OPTIMIZER_IS_BUILT, True)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if is_built:
            build_optimizer(self)

    def classify(
        self,
        paths: Iterable[str | os.PathLike[str]],
        batch_size: int = 32,
        unknown: str | float | None = None,
        tta: int = 1,
        inference_precision: str = "float32",
    ) -> list[Classification]:
        """Classifies image files.

        Args:
            paths: Files in any format that training reads.
            batch_size: Integer, how many images are in memory at once.
            tta: Test-time augmentation: integer from 1 to 7, the number of views of
                each image over which the probabilities are averaged. See
                `keras_flowers.layers.views`.
            unknown: Which images show none of the classes, in `is_unknown` of each
                result: a threshold below which the probability of the most probable
                class is too low; `"auto"` for what `train` has found to reject 5 % of
                the validation images, by the features if there is a backbone; or
                `None` for none. With `multi_label`, an image without a label shows none
                of the classes; a number here raises all lower thresholds to it.
            inference_precision: `"float32"`, or `"bf16"` or `"int8"`, in which OpenVINO
                computes the features of a backbone faster, if the processor can.

        Returns:
            One `Classification` per path, in the order of `paths`.

        Raises:
            InputError: If a file is not a readable image; the message names it. Or
                if an argument is not as described.
        """
        batch_size = check_integer("batch_size", batch_size, lowest=1)
        return require_readable(
            self.classify_each(paths, batch_size, unknown, tta, inference_precision)
        )

    def classify_each(
        self,
        paths: Iterable[str | os.PathLike[str]],
        batch_size: int = 32,
        unknown: str | float | None = None,
        tta: int = 1,
        inference_precision: str = "float32",
        on_difference: Callable[[PredictionDifference], None] | None = None,
    ) -> Iterator[Classification | UnreadableImage]:
        """Classifies image files one by one while the next ones are decoded.

        Args:
            paths: Files in any format that training reads.
            batch_size: Integer, how many images are classified at once.
            unknown: As for `classify`.
            tta: As for `classify`.
            inference_precision: As for `classify`.
            on_difference: Called with what a lower precision than float32 changes for
                128 of the images, or all if there are fewer.

        Yields:
            A `Classification` for each path, or an `UnreadableImage` with `path` and
            `error`, in the order of `paths`.

        Raises:
            InputError: If an argument is not as described; or for an
                `inference_precision` other than float32, if the model has no backbone,
                Keras does not use TensorFlow, or OpenVINO (for int8, also NNCF) is not
                installed.
        """
        check_paths(paths)
        sample = None
        if choose_precision(self, inference_precision) != "float32":
            paths = list(paths)
            sample = load_spread(paths, self.image_size, self.resize)
        count = len(paths) if isinstance(paths, Sequence) else 0
        return classify_files(
            self.predictor(
                unknown, tta, count, inference_precision, sample, on_difference
            ),
            self.class_names,
            self.image_size,
            paths,
            batch_size,
            self.resize,
            raise_thresholds(self.label_thresholds, unknown),
        )

    def averaging_views(self, count: int) -> keras.Model:
        """Returns a model that averages the probabilities over views of an image.

        They are those of `predict`, with the temperature of this model.

        Args:
            count: Number of views, from 1 to 7. For 1 it is this model.
        """
        return average_views(self, self.image_size, count)

    def predictor(
        self,
        unknown: str | float | None = None,
        tta: int = 1,
        count: int = 0,
        inference_precision: str = "float32",
        sample: np.ndarray | None = None,
        on_difference: Callable[[PredictionDifference], None] | None = None,
    ) -> Callable[[Any], Any]:
        """Returns a function that classifies batches of images, as `classify` does.

        Args:
            unknown: As for `classify`.
            tta: As for `classify`.
            count: How many images there are, if that is known, else 0.
            inference_precision: As for `classify`.
            sample: Typical images, uint8 `(count, height, width, 3)`, which calibrate
                int8, and on which a lower precision is compared with float32; `None`
                for the first batch.
            on_difference: As for `classify_each`.

        Returns:
            A function that maps images, uint8 `(batch, height, width, 3)`, to their
            probabilities, `(batch, classes)`, or to a pair of these and bool
            `(batch,)`, whether the images show none of the classes.

        Raises:
            InputError: As `classify_each` does for `unknown`, `tta` and
                `inference_precision`.
        """
        return build_classifying_function(
            self, unknown, tta, count, inference_precision, sample, on_difference
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves what tells unknown images; called by `save`."""
        if self.unknown_detector is not None:
            for name, array in self.unknown_detector.to_arrays().items():
                store[name] = array

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` has saved."""
        arrays = {name: store[name] for name in store.keys()}  # noqa: SIM118
        self.unknown_detector = UnknownDetector.from_arrays(arrays) if arrays else None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        augmentation: Any = self.augmentation
        if isinstance(augmentation, keras.layers.Layer):
            augmentation = keras.saving.serialize_keras_object(augmentation)
        backbone = self.backbone
        if backbone is not None:
            backbone = keras.saving.serialize_keras_object(backbone)
        return {
            **super().get_config(),
            "class_names": list(self.class_names),
            "image_size": list(self.image_size),
            "hidden_units": (
                None if self.hidden_units is None else list(self.hidden_units)
            ),
            "dropout": self.dropout,
            "augmentation": augmentation,
            "seed": self.seed,
            "backbone": backbone,
            "resize": self.resize,
            "temperature": self.temperature,
            "multi_label": self.multi_label,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ImageClassifier":
        """Creates a model with fresh weights from what `get_config` returned."""
        config = dict(config)
        for name in ("augmentation", "backbone"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)


def _argument_names() -> list[str]:
    """Returns the names of the arguments of `ImageClassifier`."""
    return [
        parameter.name
        for parameter in inspect.signature(ImageClassifier).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]


def _choose_jit_compile(
    model: keras.Model,
    layers: Sequence[keras.layers.Layer],
    options: Mapping[str, Any],
) -> bool | str:
    """Returns what `jit_compile` should be for some layers of a model."""
    has_backbone = any(isinstance(layer, Backbone) for layer in layers)
    if keras.backend.backend() != "tensorflow" or has_backbone:
        return "auto"
    if has_strategy(model):
        return False  # as Keras decides
    can = all(layer.supports_jit for layer in layers)
    return can and not options.get("run_eagerly", False)


def _apply(layers: Iterable[keras.layers.Layer], inputs: Any) -> Any:
    """Returns the output of layers that are applied one after the other."""
    for layer in layers:
        inputs = layer(inputs)
    return inputs
