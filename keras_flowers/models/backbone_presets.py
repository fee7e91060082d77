"""The named networks, and how Keras builds them."""

import dataclasses
import difflib
from collections.abc import Iterable

import keras

from keras_flowers.errors import InputError
from keras_flowers.layers.preprocessing import CAFFE, TF, TORCH, ImageNetPreprocessing
from keras_flowers.models.small_convnet import small_convnet

IMAGENET = "imagenet"


@dataclasses.dataclass(frozen=True)
class Network:
    """A named network that turns images into features.

    Attributes:
        name: The name.
        function: The function of `keras.applications` that builds it; `None` for the
            package's own.
        preprocessing: Mode of `ImageNetPreprocessing`; `None` if the network has
            its own.
        side: Default height and width of the images, in pixels.
        feature_size: Length of the feature vector of an image.
        parameters: Number of weights, without the classification layers.
        smallest_side: Minimum height and width, in pixels.
        alpha: Width multiplier, for networks that have one.
        has_imagenet_weights: Whether Keras can download ImageNet weights.
    """

    name: str
    function: str | None
    preprocessing: str | None
    side: int
    feature_size: int
    parameters: int
    smallest_side: int = 32
    alpha: float | None = None
    has_imagenet_weights: bool = True

    def build(
        self, image_size: tuple[int, int], weights: str | None = None
    ) -> keras.Model:
        """Returns the network, with its preprocessing and average pooling.

        Args:
            image_size: `(height, width)` in pixels.
            weights: `"imagenet"`, which Keras downloads and caches, or `None`
                for random ones.
        """
        if self.function is None:
            return small_convnet(image_size)
        inputs = images = keras.Input((*image_size, 3), name="images")
        if self.preprocessing is not None:
            images = ImageNetPreprocessing(self.preprocessing)(inputs)
        options = {} if self.alpha is None else {"alpha": self.alpha}
        application = getattr(keras.applications, self.function)(
            input_tensor=images,
            input_shape=(*image_size, 3),
            include_top=False,
            pooling="avg",
            weights=weights,
            **options,
        )
        return keras.Model(inputs, application.outputs[0], name=self.name)


# Of Keras 3.15, without the classification layers.
_NETWORKS = (
    Network("convnext_base", "ConvNeXtBase", None, 224, 1024, 87566464),
    Network("convnext_large", "ConvNeXtLarge", None, 224, 1536, 196230336),
    Network("convnext_small", "ConvNeXtSmall", None, 224, 768, 49454688),
    Network("convnext_tiny", "ConvNeXtTiny", None, 224, 768, 27820128),
    Network("convnext_xlarge", "ConvNeXtXLarge", None, 224, 2048, 348147968),
    Network("densenet121", "DenseNet121", TORCH, 224, 1024, 7037504),
    Network("densenet169", "DenseNet169", TORCH, 224, 1664, 12642880),
    Network("densenet201", "DenseNet201", TORCH, 224, 1920, 18321984),
    Network("efficientnet_b0", "EfficientNetB0", None, 224, 1280, 4049571),
    Network("efficientnet_b1", "EfficientNetB1", None, 240, 1280, 6575239),
    Network("efficientnet_b2", "EfficientNetB2", None, 260, 1408, 7768569),
    Network("efficientnet_b3", "EfficientNetB3", None, 300, 1536, 10783535),
    Network("efficientnet_b4", "EfficientNetB4", None, 380, 1792, 17673823),
    Network("efficientnet_b5", "EfficientNetB5", None, 456, 2048, 28513527),
    Network("efficientnet_b6", "EfficientNetB6", None, 528, 2304, 40960143),
    Network("efficientnet_b7", "EfficientNetB7", None, 600, 2560, 64097687),
    Network("efficientnet_v2_b0", "EfficientNetV2B0", None, 224, 1280, 5919312),
    Network("efficientnet_v2_b1", "EfficientNetV2B1", None, 240, 1280, 6931124),
    Network("efficientnet_v2_b2", "EfficientNetV2B2", None, 260, 1408, 8769374),
    Network("efficientnet_v2_b3", "EfficientNetV2B3", None, 300, 1536, 12930622),
    Network("efficientnet_v2_l", "EfficientNetV2L", None, 480, 1280, 117746848),
    Network("efficientnet_v2_m", "EfficientNetV2M", None, 480, 1280, 53150388),
    Network("efficientnet_v2_s", "EfficientNetV2S", None, 384, 1280, 20331360),
    Network(
        "inception_resnet_v2",
        "InceptionResNetV2",
        TF,
        299,
        1536,
        54336736,
        smallest_side=75,
    ),
    Network("inception_v3", "InceptionV3", TF, 299, 2048, 21802784, smallest_side=75),
    Network("mobilenet", "MobileNet", TF, 224, 1024, 3228864),
    Network("mobilenet_0.25", "MobileNet", TF, 224, 256, 218544, alpha=0.25),
    Network("mobilenet_0.5", "MobileNet", TF, 224, 512, 829536, alpha=0.5),
    Network("mobilenet_0.75", "MobileNet", TF, 224, 768, 1832976, alpha=0.75),
    Network("mobilenet_v2", "MobileNetV2", TF, 224, 1280, 2257984),
    Network("mobilenet_v2_0.35", "MobileNetV2", TF, 224, 1280, 410208, alpha=0.35),
    Network("mobilenet_v2_0.5", "MobileNetV2", TF, 224, 1280, 706224, alpha=0.5),
    Network("mobilenet_v2_0.75", "MobileNetV2", TF, 224, 1280, 1382064, alpha=0.75),
    Network("mobilenet_v2_1.3", "MobileNetV2", TF, 224, 1664, 3766048, alpha=1.3),
    Network("mobilenet_v2_1.4", "MobileNetV2", TF, 224, 1792, 4363712, alpha=1.4),
    Network("mobilenet_v3_large", "MobileNetV3Large", None, 224, 960, 2996352),
    Network("mobilenet_v3_small", "MobileNetV3Small", None, 224, 576, 939120),
    Network("nasnet_large", "NASNetLarge", TF, 331, 4032, 84916818),
    Network("nasnet_mobile", "NASNetMobile", TF, 224, 1056, 4269716),
    Network("resnet101", "ResNet101", CAFFE, 224, 2048, 42658176),
    Network("resnet101_v2", "ResNet101V2", TF, 224, 2048, 42626560),
    Network("resnet152", "ResNet152", CAFFE, 224, 2048, 58370944),
    Network("resnet152_v2", "ResNet152V2", TF, 224, 2048, 58331648),
    Network("resnet50", "ResNet50", CAFFE, 224, 2048, 23587712),
    Network("resnet50_v2", "ResNet50V2", TF, 224, 2048, 23564800),
    Network("vgg16", "VGG16", CAFFE, 224, 512, 14714688),
    Network("vgg19", "VGG19", CAFFE, 224, 512, 20024384),
    Network("xception", "Xception", TF, 299, 2048, 20861480, smallest_side=71),
    Network("small_convnet", None, None, 128, 256, 980704, has_imagenet_weights=False),
)
# Accuracy on test images of flower_photos with the default settings of `train`, as
# measured in docs/accuracy.md.
FLOWERS_ACCURACY = {"mobilenet_0.25": 0.844, "small_convnet": 0.864}
# Top-1 accuracy on the validation images of ImageNet, as published for the weights that
# Keras downloads: the table at https://keras.io/api/applications. It has no figures for
# the narrow and wide MobileNets and for MobileNetV3.
IMAGENET_TOP1 = {
    "convnext_base": 0.853,
    "convnext_large": 0.863,
    "convnext_small": 0.823,
    "convnext_tiny": 0.813,
    "convnext_xlarge": 0.867,
    "densenet121": 0.750,
    "densenet169": 0.762,
    "densenet201": 0.773,
    "efficientnet_b0": 0.771,
    "efficientnet_b1": 0.791,
    "efficientnet_b2": 0.801,
    "efficientnet_b3": 0.816,
    "efficientnet_b4": 0.829,
    "efficientnet_b5": 0.836,
    "efficientnet_b6": 0.840,
    "efficientnet_b7": 0.843,
    "efficientnet_v2_b0": 0.787,
    "efficientnet_v2_b1": 0.798,
    "efficientnet_v2_b2": 0.805,
    "efficientnet_v2_b3": 0.820,
    "efficientnet_v2_l": 0.857,
    "efficientnet_v2_m": 0.853,
    "efficientnet_v2_s": 0.839,
    "inception_resnet_v2": 0.803,
    "inception_v3": 0.779,
    "mobilenet": 0.704,
    "mobilenet_v2": 0.713,
    "nasnet_large": 0.825,
    "nasnet_mobile": 0.744,
    "resnet101": 0.764,
    "resnet101_v2": 0.772,
    "resnet152": 0.766,
    "resnet152_v2": 0.780,
    "resnet50": 0.749,
    "resnet50_v2": 0.760,
    "vgg16": 0.713,
    "vgg19": 0.713,
    "xception": 0.790,
}
_BY_NAME = {network.name: network for network in _NETWORKS}


def backbone_names() -> tuple[str, ...]:
    """Returns the names that `Backbone` knows."""
    return tuple(_BY_NAME)


def named_network(name: str) -> Network:
    """Returns the network with a name.

    Raises:
        InputError: If there is none; the message suggests similar names.
    """
    if name not in _BY_NAME:
        raise InputError(
            f"There is no backbone {name!r}.{did_you_mean(name, _BY_NAME)} "
            "`keras-flowers backbones` lists them; a file must end in .keras."
        )
    return _BY_NAME[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean ...?` with the names nearest to one, or nothing."""
    nearest = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(nearest)}?" if nearest else ""
