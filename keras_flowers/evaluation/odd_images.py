"""Finds images that look odd: dark, bright, blurred, nearly empty, of an odd size.

What is odd is decided by cleanvision, with its thresholds. Where nearly all images have
one size, it calls every other size odd; here, an odd size is also far from the median.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from keras_flowers.data.audit import Audit
from keras_flowers.data.findings import Finding
from keras_flowers.data.image_files import ImageRecord, fit_inside
from keras_flowers.evaluation.extras import require_audit_libraries
from keras_flowers.files import printable_path
from keras_flowers.progress import Progress

if TYPE_CHECKING:
    import pandas

# By the name in cleanvision: the kind of finding, and what a message says.
_KINDS = {
    "dark": ("dark", "dark"),
    "light": ("bright", "bright"),
    "blurry": ("blurred", "blurred"),
    "low_information": ("low_information", "hardly any detail"),
    "odd_aspect_ratio": ("odd_shape", "an odd aspect ratio"),
    "odd_size": ("odd_size", "far larger or smaller than the others"),
}
# An odd size is at least so many times larger or smaller than the median.
_ODD_FACTOR = 2.0
# Which of them need the pixels.
_OF_PIXELS = ("dark", "low_information", "blurry")


def find_odd_images(
    audit: Audit,
    batches: Iterable[np.ndarray],
    progress: Progress | None = None,
) -> list[Finding]:
    """Finds odd images.

    Args:
        audit: The images.
        batches: Their pixels, in the same order: uint8 `(batch, height, width, 3)`, in
            the size of the image cache, stretched.
        progress: Called with `"look"`, images done and images in all.

    Returns:
        Findings of the kinds `dark`, `bright`, `blurred`, `low_information`,
        `odd_shape` and `odd_size`, each with the `score` of cleanvision: 0 to 1, the
        lower, the odder. The oddest of a kind comes first.

    Raises:
        InputError: If cleanvision is not installed.
    """
    require_audit_libraries()
    import pandas
    from cleanvision.issue_managers.image_property_issue_manager import (
        ImagePropertyIssueManager,
    )

    judge = ImagePropertyIssueManager()
    properties = judge.image_properties
    records = audit.images
    rows: list[dict[str, Any]] = []
    for record, pixels in zip(records, _images(batches), strict=True):
        full = (record.width, record.height)
        # An image that is smaller than the network sees it is not blurred for that.
        side = min(*pixels.shape[:2], *full)
        shown = Image.fromarray(pixels).resize(fit_inside(full, (side, side)))
        row: dict[str, Any] = {}
        for name in _OF_PIXELS:
            row |= properties[name].calculate(shown)
        row["aspect_ratio"] = min(full) / max(full)
        row["size"] = float(np.sqrt(full[0] * full[1]))
        rows.append(row)
        if progress is not None:
            progress("look", len(rows), len(records))
    judge.issues = pandas.DataFrame(index=range(len(rows)))
    found = pandas.DataFrame(rows)
    judge.update_issues(found, list(_KINDS))
    factors = np.exp(np.abs(np.log(found["size"] / found["size"].median())))
    judge.issues["is_odd_size_issue"] &= factors >= _ODD_FACTOR
    return list(_describe(records, judge.issues))


def _images(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield from batch


def _describe(
    records: Sequence[ImageRecord], issues: "pandas.DataFrame"
) -> Iterator[Finding]:
    for name, (kind, what) in _KINDS.items():
        scores = issues[f"{name}_score"].to_numpy()
        found = np.flatnonzero(issues[f"is_{name}_issue"].to_numpy())
        for index in found[np.argsort(scores[found], kind="stable")].tolist():
            record = records[index]
            size = f", {record.width} x {record.height}" if "odd" in name else ""
            yield Finding(
                kind,
                (record.path,),
                f"{printable_path(record.path)}: {what}{size}",
                details={"score": round(float(scores[index]), 6)},
            )
