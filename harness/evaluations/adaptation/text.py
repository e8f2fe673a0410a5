"""The adapters' table as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.reports.text import Sheet, Text
from harness.reports.wording import percent

if TYPE_CHECKING:
    from harness.evaluations.adaptation.table import AdaptationTable

HEADERS = (
    "model", "adapter", "protocol", "error (%)", "after (%)", "ID error after (%)", "updated (%)", "class entropy",
    "resets", "forwards", "backwards",
)  # fmt: skip
_LEFT = 3  # columns that are names


def adaptation_text(table: AdaptationTable) -> Text:
    """Show the means."""
    sheet = Sheet(f"{table.suite}: adaptation", HEADERS, _rows(table), HEADERS[:_LEFT])
    content = {"suite": table.suite, "sets": table.frame, "means": table.means, "notes": table.notes}
    return Text([sheet], legend(table), table.frame, content)


def legend(table: AdaptationTable) -> list[str]:
    """Say how the table is read."""
    return [
        "Error: of the predictions that the method's paper scores, mean over the sets, of ID where OOD is among it; "
        "with several seeds its 95 % interval (Student's, over models' seeds, or over one model's streams).",
        "After: the error with what was learnt from the very batch. ID error after: on ID test, with the model that is "
        "left when the streams have ended.",
        "Updated: batches after which a weight had moved. Class entropy: of the predicted classes, 1 where they are "
        "even, 0 where one class is left. Forwards, backwards: passes of an image that the method defines.",
        *table.notes,
    ]


def _rows(table: AdaptationTable) -> list[list[str]]:
    rows: list[list[str]] = []
    for row in table.means.to_dict(orient="records"):
        names = [str(row[name]) for name in ("model", "adapter", "protocol")]
        numbers = [_error(row), *(percent(row[name]) for name in ("error_after", "id_error", "updated"))]
        counts = [f"{row['class_entropy']:.3f}", f"{row['resets']:.3g}"]
        rows.append([*names, *numbers, *counts, *(f"{row[name]:.3g}" for name in ("forwards", "backwards"))])
    return rows


def _error(row: dict[Any, Any]) -> str:
    if row["lo"] is None or math.isnan(row["lo"]):
        return percent(row["error"])
    return f"{percent(row['error'])} [{percent(row['lo'])}, {percent(row['hi'])}]"
