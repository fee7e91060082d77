"""An audit as one self-contained page, from `templates/audit.html.j2`."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_flowers.data.audit import Audit
from keras_flowers.data.findings import (
    Finding,
    FindingKind,
    find_kind,
    group_findings,
)
from keras_flowers.data.image_files import (
    DEFAULT_OPTIONS,
    ImageOptions,
    load_thumbnail,
)
from keras_flowers.errors import InputError
from keras_flowers.evaluation.pages import render_page
from keras_flowers.files import write_text_atomically
from keras_flowers.notebook import jpeg_address

# Longer lists are cut, and the page says by how much.
_LIMITS = {"classes": 200, "findings": 100, "images": 8, "names": 100}
_THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class _Section:
    """The findings of a kind, and the images of each."""

    kind: FindingKind
    count: int
    findings: Sequence[tuple[Finding, Sequence[dict[str, Any]]]]

    @property
    def actions(self) -> str:
        """What was done with the files, in the words of the findings."""
        return ", ".join(dict.fromkeys(found.action for found, _ in self.findings))


def write_audit_report(
    path: str | os.PathLike[str],
    audit: Audit,
    options: ImageOptions = DEFAULT_OPTIONS,
) -> None:
    """Writes an audit as one self-contained HTML page.

    The page shows the findings of each kind, the worst first, with small versions of
    their images: copies are side by side. It loads nothing and runs nothing: you can
    mail it, or open it from a disk. It shows up to 100 findings of each kind and says
    how many more there are.

    Args:
        path: The file to write or to replace, atomically. Its folder must exist.
        audit: What to show. The images of findings are read again.
        options: How images are decoded.

    Raises:
        InputError: If the file cannot be written.
    """
    records = {record.path: record for record in audit.images}

    def describe(name: str, finding: Finding) -> dict[str, Any]:
        record = records.get(name)
        about = (record.width, record.height, record.format) if record else None
        return {
            "path": name,
            "about": "{} x {} {}".format(*about) if about else "",
            "is_copy": finding.exclude != finding.paths
            and name in (finding.exclude or ()),
            "thumbnail": _load(audit.root / name, options),
        }

    def show(finding: Finding) -> tuple[Finding, list[dict[str, Any]]]:
        names = finding.paths if _is_about_images(finding) else ()
        images = [describe(name, finding) for name in names[: _LIMITS["images"]]]
        # Without a picture, the message says it all.
        return finding, images if any(image["thumbnail"] for image in images) else []

    most = _LIMITS["findings"]
    with ThreadPoolExecutor() as pool:
        sections = [
            _Section(kind, len(found), list(pool.map(show, found[:most])))
            for kind, found in group_findings(audit.findings)
        ]
    page = render_page(
        "audit.html.j2",
        "report.css",
        "audit.css",
        title=f"Audit of {audit.root.absolute().name}",
        audit=audit,
        limits=_LIMITS,
        sections=sections,
        findings=sum(section.count for section in sections),
        unusable=len({name for found in audit.left_out for name in found.paths}),
    )
    write_text_atomically(path, page)


def _is_about_images(finding: Finding) -> bool:
    kind = find_kind(finding.kind)
    return kind.exclude != "none" or kind.name in ("excluded", "unlisted")


def _load(path: Path, options: ImageOptions) -> dict[str, Any] | None:
    """Returns a small version of an image, or None if it cannot be read."""
    try:
        pixels = load_thumbnail(path, _THUMBNAIL_SIDE, options)
    except InputError:
        return None
    height, width = pixels.shape[:2]
    return {"source": jpeg_address(pixels), "width": width, "height": height}
