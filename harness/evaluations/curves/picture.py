"""The picture of probes along training: one panel per probe and set, one line per model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.evaluations.curves.table import curve_table
from harness.reports.plots import drawing
from harness.reports.plots.curves import Choice, one_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def lines(folder: Path, choice: Choice) -> drawing.Lines:
    """Gather the lines of a run: of all its models, or of the chosen one, seed and sets.

    Raises RecordsError for a folder without curves, UnknownNameError for a model, seed or set that is not among them.
    """
    table = curve_table([folder])
    frame = _chosen(table.frame, choice)
    panels: dict[str, dict[str, drawing.Line]] = {}
    for (probe, on, model), of_line in frame.groupby(["probe", "on", "model"], sort=False):
        panels.setdefault(f"{probe} on {on}", {})[str(model)] = _line(of_line)
    return drawing.Lines(f"{table.suite}: probes along training", panels)


def _chosen(frame: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    for column, given in (("model", choice.model), ("seed", choice.seed)):
        if given is not None:
            frame = frame[frame[column] == one_of(column, given, frame[column].unique().tolist())]
    for name in choice.sets:
        one_of("set", name, frame["on"].unique().tolist())
    return frame[frame["on"].isin(choice.sets)] if choice.sets else frame


def _line(of_line: pd.DataFrame) -> drawing.Line:
    at = of_line.groupby("epoch")["value"].agg(["mean", "min", "max"])
    return drawing.Line(
        at.index.to_numpy(), at["mean"].to_numpy(), at["min"].to_numpy(), at["max"].to_numpy()
    )
