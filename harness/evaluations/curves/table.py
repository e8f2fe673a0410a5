"""The probes along training of one or several runs, as a table: one row per model, set and probe, epochs by column."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reports.record import CURVE
from harness.reports.records import failures, records_of
from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pandas as pd

    from harness.reports.record import Record

COLUMNS = ("model", "seed", "on", "probe", "epoch", "value", "lo", "hi")
MOST_EPOCHS = 6  # in the table for people; the frame has all
_NAMES = ("model", "on", "probe")  # columns that are names


@dataclass(frozen=True)
class CurveTable:
    """One row per model, seed, set, probe and epoch."""

    suite: str
    frame: pd.DataFrame  # COLUMNS
    notes: list[str]


def curve_table(folders: Sequence[Path]) -> CurveTable:
    """Gather the curves of runs of one suite; if several runs hold a number, the last one's counts.

    Raises RecordsError for folders without curves, and for runs of different suites or data.
    """
    import pandas as pd

    records = records_of(folders, CURVE, "curves")
    rows = [_row(record) for record in records if not record.error]
    frame = pd.DataFrame(rows, columns=COLUMNS).sort_values("epoch", kind="stable", ignore_index=True)
    return CurveTable(records[0].suite, frame, failures(records, lambda r: str(r.probe)))


def _row(record: Record) -> dict[str, Any]:
    (metric,) = record.metrics.values()
    return {
        "model": record.model,
        "seed": record.seed,
        "on": record.on,
        "probe": record.probe,
        "epoch": record.epoch,
        **metric,
    }


def curve_text(table: CurveTable) -> Text:
    """Show the numbers, one row per model, set and probe, at a few epochs from the first to the last."""
    frame = table.frame
    shown = _spread(sorted(set(frame["epoch"].tolist())))
    rows = [
        [
            str(model),
            str(on),
            str(probe),
            *(_summary(of.loc[of["epoch"] == epoch, "value"]) for epoch in shown),
        ]
        for (model, on, probe), of in frame.groupby(["model", "on", "probe"], sort=False)
    ]
    headers = [*_NAMES, *(f"epoch {epoch}" for epoch in shown)]
    sheet = Sheet(f"{table.suite}: probes along training", headers, rows, _NAMES, has_headings=True)
    content = {"suite": table.suite, "curves": frame, "notes": table.notes}
    return Text([sheet], _legend(table), frame, content)


def _legend(table: CurveTable) -> list[str]:
    return [
        "Epoch 0: before the first step. With several seeds: the mean, and after ± the standard deviation over the "
        "seeds. All epochs: --format csv, and `plot curves`.",
        f"{ABSENT}: not measured.",
        *table.notes,
    ]


def _spread(epochs: Sequence[int]) -> list[int]:
    """Choose at most MOST_EPOCHS, evenly, with the first and the last."""
    if len(epochs) <= MOST_EPOCHS:
        return list(epochs)
    steps = MOST_EPOCHS - 1
    return [epochs[round(number * (len(epochs) - 1) / steps)] for number in range(MOST_EPOCHS)]


def _summary(values: Iterable[float]) -> str:
    found = [float(value) for value in values]
    if len(found) < 2:
        return f"{found[0]:.4g}" if found else ABSENT
    return f"{statistics.fmean(found):.4g} ± {statistics.stdev(found):.2g}"
