"""The picture of probes against accuracy: one panel per probe and set, one point per trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import RecordsError
from harness.evaluations.probes.table import correlation_text, probe_table
from harness.reports.plots import drawing
from harness.reports.plots.curves import Choice, one_of
from harness.reports.wording import ABSENT

if TYPE_CHECKING:
    from pathlib import Path


def dots(folder: Path, choice: Choice) -> drawing.Dots:
    """Gather the points of a run: accuracy over the value of each probe, of all trained models.

    Raises RecordsError for a folder without probes or without accuracy, UnknownNameError for an unknown set.
    """
    table = probe_table([folder])
    for name in choice.sets:
        one_of("set", name, table.frame["on"].unique().tolist())
    frame = table.frame.dropna(subset=["accuracy"])
    if choice.sets:
        frame = frame[frame["on"].isin(choice.sets)]
    if frame.empty:
        raise RecordsError(f"no model of {str(folder)!r} has an accuracy: its sets have no labels of ID")
    told = {(row["probe"], row["on"]): correlation_text(row) for row in table.correlations.to_dict("records")}
    panels: dict[str, dict[str, drawing.Array]] = {}
    for (probe, on, model), of_model in frame.groupby(["probe", "on", "model"], sort=False):
        found = told.get((probe, on), ABSENT)
        title = f"{probe} on {on}" + ("" if found == ABSENT else f"\n{found}")
        points = of_model[["value", "accuracy"]].to_numpy(dtype=float) * [1, 100]
        panels.setdefault(title, {})[str(model)] = points
    return drawing.Dots(f"{table.suite}: accuracy over probes", panels, ("value", "accuracy, %"))
