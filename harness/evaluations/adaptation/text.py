"""The adapters' table as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.base.cache import write_atomically
from harness.evaluations.adaptation.table import adaptation_table
from harness.reports.records import holds
from harness.reports.wording import json_of_frames, markdown, percent, terminal_table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from harness.evaluations.adaptation.table import AdaptationTable

HEADERS = (
    "model", "adapter", "protocol", "error (%)", "after (%)", "ID error after (%)", "updated (%)", "class entropy",
    "resets", "forwards", "backwards",
)  # fmt: skip
_LEFT = 3  # columns that are names


def write_adaptation(folder: Path) -> None:
    """Write adaptation.csv and adaptation.md beside a run's records; nothing where nothing was adapted."""
    if holds(folder, "adaptation"):
        table = adaptation_table([folder])
        write_atomically(folder / "adaptation.csv", as_csv(table))
        write_atomically(folder / "adaptation.md", as_markdown(table))


def as_csv(table: AdaptationTable) -> str:
    """Write one line a model, adapter, protocol, seeds and set, at full precision."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def as_json(table: AdaptationTable) -> str:
    """Write the numbers and their means at full precision."""
    frames = {"sets": table.frame, "means": table.means}
    return json_of_frames({"suite": table.suite}, frames, table.notes)


def as_markdown(table: AdaptationTable) -> str:
    """Write the means, with what a reader must know below."""
    return markdown(HEADERS, _rows(table), legend(table))


def as_terminal(table: AdaptationTable) -> RenderableType:
    """Draw the means, with what a reader must know below."""
    from rich.console import Group
    from rich.text import Text

    drawn = terminal_table(f"{table.suite}: adaptation", HEADERS, _rows(table), names=HEADERS[:_LEFT])
    return Group(drawn, Text("\n".join(legend(table))))


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
