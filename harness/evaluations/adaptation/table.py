"""The adapters of one or several runs: errors by set, their means over sets with an interval, and both as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reports.records import failures, records_of
from harness.reports.text import Sheet, Text
from harness.reports.wording import percent, with_interval
from harness.statistics.intervals import seed_interval

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from harness.reports.record import Record

METRICS = (
    "error", "error_after", "id_error", "updated", "resets", "class_entropy", "forwards", "backwards",
)  # fmt: skip
PLACE = ("model", "adapter", "protocol")
SUMMED = ("resets",)  # over the sets of a passage; the others are averaged


@dataclass(frozen=True)
class AdaptationTable:
    """One row per model, adapter, protocol, seeds and set; and one per model, adapter and protocol."""

    suite: str
    frame: pd.DataFrame  # model, adapter, protocol, seed, stream, set, METRICS
    means: pd.DataFrame  # model, adapter, protocol, seeds, streams, error, lo, hi, the other METRICS
    notes: list[str]


def adaptation_table(folders: Sequence[Path]) -> AdaptationTable:
    """Gather the adapters of runs of one suite; if several runs hold a cell, the last one's record counts.

    Means are over the sets, each with equal weight. Their interval is Student's over models' seeds, each averaged over
    its streams. With one seed of the model it is over streams, and does not cover other trainings. An adapter that
    lacks a set is left out of the means, and noted.

    Raises RecordsError for folders without adapters, and for runs of different suites or data.
    """
    import pandas as pd

    found = records_of(folders, "adaptation", "adapters")
    columns = [*PLACE, "seed", "stream", "set", *METRICS]
    frame = pd.DataFrame([_row(record) for record in found if not record.error], columns=columns)
    notes = failures(found, lambda r: f"{r.adapter} ({r.place[2]})")
    sets: dict[str, set[str]] = {}  # by protocol
    for record in found:
        sets.setdefault(record.place[2], set()).add(record.on)
    return AdaptationTable(found[0].suite, frame, _means(frame, sets), notes)


def _row(record: Record) -> dict[str, Any]:
    values = {name: record.value(name) for name in METRICS}
    seeds = {"seed": record.seed, "stream": record.seeds["stream"]}
    return dict(zip(PLACE, record.place, strict=True)) | seeds | {"set": record.on} | values


def _means(frame: pd.DataFrame, sets: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """Average over sets, then over streams and models' seeds; sorted by model, protocol and error."""
    import pandas as pd

    rows = []
    for place, of_place in frame.groupby(list(PLACE), sort=False):
        names = dict(zip(PLACE, map(str, place), strict=True))
        passages = of_place.groupby(["seed", "stream"])
        whole = passages[list(METRICS)].agg({name: "sum" if name in SUMMED else "mean" for name in METRICS})[
            passages["set"].nunique() == len(sets[names["protocol"]])
        ]
        if not len(whole):
            continue
        by_seed = whole.groupby("seed")["error"].mean()
        replicates = by_seed if len(by_seed) > 1 else whole["error"]
        low, high = seed_interval(replicates.to_numpy()).interval or (None, None)
        counts = {"seeds": len(by_seed), "streams": whole.index.get_level_values("stream").nunique()}
        others = whole.mean()
        rows.append(names | counts | others.to_dict() | {"lo": low, "hi": high})
    columns = [*PLACE, "seeds", "streams", "error", "lo", "hi", *METRICS[1:]]
    return pd.DataFrame(rows, columns=columns).sort_values(["model", "protocol", "error"], ignore_index=True)


HEADERS = (
    "model", "adapter", "protocol", "error (%)", "after (%)", "ID error after (%)", "updated (%)", "class entropy",
    "resets", "forwards", "backwards",
)  # fmt: skip
_LEFT = 3  # columns that are names


def adaptation_text(table: AdaptationTable) -> Text:
    """Show the means."""
    sheet = Sheet(f"{table.suite}: adaptation", HEADERS, _rows(table), HEADERS[:_LEFT], has_headings=True)
    content = {"suite": table.suite, "sets": table.frame, "means": table.means, "notes": table.notes}
    return Text([sheet], legend(table), table.frame, content)


def legend(table: AdaptationTable) -> list[str]:
    """Explain how to read the table."""
    return [
        "Error: of the predictions that the method's paper scores, mean over the sets, on the ID samples of a stream; "
        "with several seeds its 95 % interval (Student's, over models' seeds, or over one model's streams).",
        "After: the error once the model has learnt from the same batch. ID error after: on ID test, with the model at "
        "the end of the streams.",
        "Updated: batches that changed a weight. Class entropy: of the predicted classes, 1 if they are even, 0 if all "
        "predictions are one class. Forwards, backwards: passes per image that the method defines.",
        *table.notes,
    ]


def _rows(table: AdaptationTable) -> list[list[str]]:
    rows: list[list[str]] = []
    for row in table.means.to_dict(orient="records"):
        names = [str(row[name]) for name in ("model", "adapter", "protocol")]
        error = with_interval(row["error"], row["lo"], row["hi"])
        numbers = [error, *(percent(row[name]) for name in ("error_after", "id_error", "updated"))]
        counts = [f"{row['class_entropy']:.3f}", f"{row['resets']:.3g}"]
        rows.append([*names, *numbers, *counts, *(f"{row[name]:.3g}" for name in ("forwards", "backwards"))])
    return rows
