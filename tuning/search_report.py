"""A search as one self-contained page: `report.html`, from `templates/`."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers.tuning.records import (
    COMPLETED,
    FAILED,
    PRUNED,
    TrialRecord,
    varied_hyperparameters,
)
from markupsafe import Markup

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.evaluation.pages import page_environment, page_values
from keras_flowers.files import write_text_atomically
from keras_flowers.plots.svg import svg_markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Longer tables are cut, and the page says by how much.
_LIMIT = 200


def write_search_report(
    path: Path,
    records: Sequence[TrialRecord],
    best: TrialRecord,
    *,
    datasets: ImageDatasets,
    objective: str,
    direction: str,
    pruning: str,
    figures: Mapping[str, "Figure"],
) -> None:
    """Writes a search as one HTML page that loads nothing and runs nothing.

    Args:
        path: The file to write or to replace, atomically.
        records: All trials.
        best: The best one.
        datasets: The data of the search.
        objective: What the score is.
        direction: `"min"` or `"max"`.
        pruning: How hopeless trials were ended early, or `"none"`.
        figures: The plots of the search by name.
    """
    sign = 1 if direction == "min" else -1

    def rank(record: TrialRecord) -> tuple[int, float]:
        groups = (COMPLETED, PRUNED, record.status)
        return groups.index(record.status), sign * (record.score or 0.0)

    names = varied_hyperparameters(records)
    environment = page_environment()
    environment.filters["value"] = _format_value
    folder = resources.files("keras_flowers.tuning") / "templates"
    template = (folder / "search.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=f"Search {path.absolute().parent.name}",
        records=records,
        ranked=sorted(records, key=rank),
        failed=sum(record.status == FAILED for record in records),
        pruned=sum(record.status == PRUNED for record in records),
        names=names,
        pruning=None if pruning == "none" else pruning,
        has_constants=not best.hyperparameters.keys() <= set(names),
        best=best,
        objective=objective,
        datasets=datasets,
        splits={
            name: datasets.counts(name)
            for name in SPLIT_NAMES
            if getattr(datasets.split, name)
        },
        plots=[
            Markup(svg_markup(figure, name, name.replace("_", " ")))
            for name, figure in figures.items()
        ],
        limit=_LIMIT,
        **page_values("report.css"),
    )
    write_text_atomically(path, page)


def _format_value(value: Any) -> str:
    return format(value, ".4g") if isinstance(value, float) else str(value)
