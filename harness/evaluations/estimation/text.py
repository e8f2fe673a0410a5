"""The estimators' table as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT, difference, percent

if TYPE_CHECKING:
    from harness.evaluations.estimation.table import EstimateTable

HEADERS = (
    "model", "estimator", "labels seen", "error (points)", "behind the best", "correlation", "error at unseen shifts",
    "extrapolated (%)",
)  # fmt: skip
_NAMES = HEADERS[:3]


def estimate_text(table: EstimateTable) -> Text:
    """Show the means."""
    sheet = Sheet(f"{table.suite}: estimates of accuracy", HEADERS, _rows(table), _NAMES)
    content = {"suite": table.suite, "sets": table.frame, "means": table.means, "notes": table.notes}
    return Text([sheet], legend(table), table.frame, content)


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
