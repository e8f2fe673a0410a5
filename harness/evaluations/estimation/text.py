"""The estimators' table as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.base.cache import write_atomically
from harness.evaluations.estimation.table import estimate_table
from harness.reports.records import holds
from harness.reports.wording import ABSENT, difference, json_of_frames, markdown, percent, terminal_table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from harness.evaluations.estimation.table import EstimateTable

HEADERS = (
    "model", "estimator", "labels seen", "error (points)", "behind the best", "correlation", "error at unseen shifts",
    "extrapolated (%)",
)  # fmt: skip
_NAMES = HEADERS[:3]


def write_estimates(folder: Path) -> None:
    """Write estimates.csv and estimates.md beside a run's records; nothing where nothing was estimated."""
    if holds(folder, "estimate"):
        table = estimate_table([folder])
        write_atomically(folder / "estimates.csv", as_csv(table))
        write_atomically(folder / "estimates.md", as_markdown(table))


def as_csv(table: EstimateTable) -> str:
    """Write one line a model, seed, estimator and set, at full precision; accuracies and errors as shares."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def as_json(table: EstimateTable) -> str:
    """Write the estimates and their means at full precision."""
    return json_of_frames({"suite": table.suite}, {"sets": table.frame, "means": table.means}, table.notes)


def as_markdown(table: EstimateTable) -> str:
    """Write the means, with what a reader must know below."""
    return markdown(HEADERS, _rows(table), legend(table))


def as_terminal(table: EstimateTable) -> RenderableType:
    """Draw the means, with what a reader must know below."""
    from rich.console import Group
    from rich.text import Text

    drawn = terminal_table(f"{table.suite}: estimates of accuracy", HEADERS, _rows(table), names=_NAMES)
    return Group(drawn, Text("\n".join(legend(table))))


def legend(table: EstimateTable) -> list[str]:
    """Say how the table is read."""
    return [
        "Error: mean absolute difference between estimated and true accuracy over the shifted sets, in points, with "
        "its 95 % interval by bootstrap over the kinds of shift.",
        "Behind the best: mean difference to the least error, on the same sets, bootstrapped alike.",
        "Correlation: Spearman's, of estimates with accuracies over the sets.",
        "Error at unseen shifts: of a curve at its calibration sets, each kind of shift predicted without it.",
        "Labels seen: what an estimator was fitted on. NAME-fitted: a curve of this model reads the score of NAME; "
        "NAME-shared: a curve of the other models. Extrapolated: sets beyond all that the curve has seen.",
        *table.notes,
    ]


def _rows(table: EstimateTable) -> list[list[str]]:
    rows: list[list[str]] = []
    for row in table.means.to_dict(orient="records"):
        names = [str(row[name]) for name in ("model", "estimator", "supervision")]
        error = f"{percent(row['error'])} [{percent(row['lo'])}, {percent(row['hi'])}]"
        behind = difference(row["behind"], row["behind_lo"], row["behind_hi"], digits=1)
        rest = [_two(row["correlation"]), percent(row["left_out"]), percent(row["extrapolated"], 0)]
        rows.append([*names, error, behind if row["behind"] > 0 else ABSENT, *rest])
    return rows


def _two(value: Any) -> str:
    return ABSENT if math.isnan(value) else f"{value:.2f}"
