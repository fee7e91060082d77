"""Classifies and explains the images of a request."""

import asyncio
import base64
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np
from keras_flowers_runtime.classification import rank_classes
from keras_flowers_runtime.decoding import (
    SUPPORTED_FORMATS,
    UnusableImageError,
    decode_image,
    identify_format,
)
from keras_flowers_runtime.heat import blend_heat, place_heat
from keras_flowers_runtime.images import (
    ImageOptions,
    Pixels,
    decode_side,
    resize_image,
)
from keras_flowers_serving.batching import Batcher
from keras_flowers_serving.limits import Budget, Limits
from keras_flowers_serving.metrics import Metrics
from keras_flowers_serving.model import ServedModel
from keras_flowers_serving.schemas import ClassProbability, HeatMap, Result
from keras_flowers_serving.uploads import Upload
from PIL import Image

_PREVIEW_SIDE = 480
_STATUSES = {
    "not_an_image": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "unsupported_format": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "decompression_bomb": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


@dataclass(frozen=True)
class Wishes:
    """What a request asks for.

    Attributes:
        top: Number of classes in each result.
        preview: Whether to return a small version of each image.
        explain: Whether to return a heat map of each image.
    """

    top: int = 5
    preview: bool = False
    explain: bool = False


@dataclass(frozen=True)
class _Decoded:
    pixels: Pixels
    preview: Pixels | None


class Classifier:
    """Decodes images in threads, and classifies those of all requests in batches.

    Args:
        model: The model.
        limits: How much it may do at the same time.
        metrics: Where it counts.
        batch_size: The most images that the model classifies at once.
    """

    def __init__(
        self, model: ServedModel, limits: Limits, metrics: Metrics, batch_size: int
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._options = ImageOptions(resize=model.resize, max_pixels=limits.pixels)
        self._decoding = ThreadPoolExecutor(os.cpu_count() or 1, "decode")
        self._predicting = ThreadPoolExecutor(1, "predict")
        self._explaining = ThreadPoolExecutor(1, "explain")
        self._batcher = Batcher(
            model.predict, self._predicting, batch_size, metrics.report_batch
        )
        self._slots = asyncio.Semaphore(limits.images)
        self._explanations = Budget(limits.explanations)

    def close(self) -> None:
        """Ends the threads."""
        for executor in (self._decoding, self._predicting, self._explaining):
            executor.shutdown(cancel_futures=True)

    async def classify(
        self, uploads: list[Upload], wishes: Wishes
    ) -> tuple[HTTPStatus, list[Result]]:
        """Returns the results, and the status of the answer.

        The status is that of the first image where none can be used.

        Raises:
            BusyError: If too many heat maps are wanted at the same time.
        """
        with self._explanations.share() as share:
            if wishes.explain:
                share.take(len(uploads))
            answers = await asyncio.gather(
                *(self._classify_one(upload, wishes) for upload in uploads)
            )
        statuses = [status for status, _ in answers]
        status = HTTPStatus.OK if HTTPStatus.OK in statuses else statuses[0]
        return status, [result for _, result in answers]

    async def _classify_one(
        self, upload: Upload, wishes: Wishes
    ) -> tuple[HTTPStatus, Result]:
        loop = asyncio.get_running_loop()
        async with self._slots:
            try:
                decoded = await loop.run_in_executor(
                    self._decoding, self._decode, upload.data, wishes
                )
            except UnusableImageError as error:
                self._metrics.images.labels("refused").inc()
                status = _STATUSES.get(error.kind, HTTPStatus.UNPROCESSABLE_ENTITY)
                return status, Result(name=upload.name, error=_explain_refusal(error))
            row, unknown = await self._batcher.classify(decoded.pixels)
            result = self._describe(upload.name, row, unknown, wishes)
            if decoded.preview is not None:
                if wishes.preview:
                    result.preview = await loop.run_in_executor(
                        self._decoding, _data_url, decoded.preview
                    )
                if wishes.explain:
                    picture = await loop.run_in_executor(
                        self._explaining, self._explain, decoded, int(row.argmax())
                    )
                    result.heatmap = HeatMap(
                        method=self._model.method,  # type: ignore[arg-type]
                        picture=picture,
                    )
        return HTTPStatus.OK, result

    def _decode(self, data: bytes, wishes: Wishes) -> _Decoded:
        size = self._model.image_size
        image = decode_image(
            data, identify_format(data, len(data)), decode_side(size), self._options
        ).image
        pixels = resize_image(image, size, self._model.resize)
        if not (wishes.preview or wishes.explain):
            return _Decoded(pixels, None)
        image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE), Image.Resampling.BILINEAR)
        return _Decoded(pixels, np.array(image))

    def _describe(
        self, name: str, row: np.ndarray, unknown: bool | None, wishes: Wishes
    ) -> Result:
        if not np.isfinite(row).all():
            raise FloatingPointError("the model returns NaN")
        thresholds = self._model.thresholds
        best = rank_classes(name, self._model.class_names, row, thresholds)
        threshold = self._model.unknown_threshold
        if thresholds is not None:
            unknown = best.is_unknown
        elif unknown is None and threshold is not None:
            unknown = best.probability < threshold
        self._metrics.images.labels("unknown" if unknown else "classified").inc()
        ranked = list(best.probabilities.items())[: wishes.top]
        return Result(
            name=name,
            predicted=best.label,
            probability=_clip(best.probability),
            unknown=unknown,
            top=[ClassProbability(name=n, probability=_clip(p)) for n, p in ranked],
            labels=(
                None
                if best.labels is None
                else [
                    ClassProbability(name=n, probability=_clip(best.probabilities[n]))
                    for n in best.labels
                ]
            ),
        )

    def _explain(self, decoded: _Decoded, label: int) -> str:
        assert decoded.preview is not None
        heat = self._model.explain(decoded.pixels, label)
        height, width, _ = decoded.preview.shape
        placed = place_heat(heat, self._model.resize, (height, width))
        return _data_url(blend_heat(decoded.preview, placed))


def _clip(probability: float) -> float:
    """Returns a probability; a softmax may exceed 1 by its rounding."""
    return min(1.0, max(0.0, probability))


def _explain_refusal(error: UnusableImageError) -> str:
    """Returns why a file is refused, without options that only its owner has."""
    reason = error.reason.partition(" (max_pixels")[0]
    if error.kind == "not_an_image":
        reason += f"; use {SUPPORTED_FORMATS}"
    return reason


def _data_url(pixels: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
