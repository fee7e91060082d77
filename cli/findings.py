"""Shows the findings of an audit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_flowers_cli.output import Output

if TYPE_CHECKING:
    from keras_flowers.data.audit import Finding

SHOWN_PER_KIND = 5


def show_findings(
    output: Output, findings: Sequence["Finding"], *, limit: int | None = SHOWN_PER_KIND
) -> None:
    """Prints the findings by kind, the first `limit` of each kind."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind, found in by_kind.items():
        output.say(f"{kind.replace('_', ' ')} ({len(found)}):")
        for finding in found[:limit]:
            output.say(f"  {finding.message}")
        if limit is not None and len(found) > limit:
            output.say(f"  ... and {len(found) - limit} more")
