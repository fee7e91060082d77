"""The data of trials: images or features, loaded once per batch size."""

from typing import Any

from keras_flowers.data.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.feature_datasets import with_features


class TrialData:
    """The data of a loader by batch size, loaded when first needed.

    A copy in another process loads it again: pipelines cannot be sent there.

    Args:
        loader: Where the images come from.
    """

    def __init__(self, loader: ImageDatasetLoader) -> None:
        self._loader = loader
        self._images: dict[int, ImageDatasets] = {}
        self._features: dict[int, ImageDatasets] = {}

    def datasets(
        self, batch_size: int, progress: Progress | None = None
    ) -> ImageDatasets:
        """Returns the images in batches of a given size.

        Raises:
            InputError: If the data cannot be used.
        """
        if batch_size not in self._images:
            config = {**self._loader.get_config(), "batch_size": batch_size}
            loader = type(self._loader).from_config(config)
            self._images[batch_size] = loader.load(progress)
        return self._images[batch_size]

    def features(
        self,
        batch_size: int,
        model: ImageClassifier,
        progress: Progress | None = None,
    ) -> ImageDatasets:
        """Returns the features in batches of a given size.

        Args:
            batch_size: Images per batch.
            model: A classifier with fixed features, each time with the same backbone.
            progress: As for `with_features`.
        """
        if batch_size not in self._features:
            images = self.datasets(batch_size)
            self._features[batch_size] = with_features(images, model, progress)
        return self._features[batch_size]

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes a copy without the data."""
        return type(self), (self._loader,)
