"""Shows the findings of an audit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_flowers_cli.output import Output

if TYPE_CHECKING:
    from keras_flowers.data.audit import Finding

SHOWN_PER_KIND = 5


def show_findings(
    output: Output, findings: Sequence["Finding"], *, limit: int = SHOWN_PER_KIND
) -> None:
    """Prints the findings by kind, the worst first and `limit` of each kind at most."""
    from keras_flowers.data.findings import group_findings

    for kind, found in group_findings(findings):
        actions = ", ".join(dict.fromkeys(finding.action for finding in found))
        output.say(f"{kind.title} ({len(found)}), {actions}:")
        for finding in found[:limit]:
            output.say(f"  {finding.message}")
        if len(found) > limit:
            output.say(f"  ... and {len(found) - limit} more")
