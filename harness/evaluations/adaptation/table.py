"""What the adapters of one or several runs came to: errors by set, and their means over sets with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.reports.records import records_of
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
    """One row a model, adapter, protocol, seeds and set; and one a model, adapter and protocol."""

    suite: str
    frame: pd.DataFrame  # model, adapter, protocol, seed, stream, set, METRICS
    means: pd.DataFrame  # model, adapter, protocol, seeds, streams, error, lo, hi, the other METRICS
    notes: list[str]


def adaptation_table(folders: Sequence[Path]) -> AdaptationTable:
    """Gather the adapters of runs of one suite; of a number that several hold, the last one's record counts.

    Means are over the sets, each with equal weight. Their interval is Student's over models' seeds, each averaged over
    its streams; of one model's seed it is over streams, and says nothing of other trainings. A row that lacks a set
    that others of its model have is left out of the means, and noted.

    Raises RecordsError for folders without adapters, and for runs of different suites or data.
    """
    import pandas as pd

    found = records_of(folders, "adaptation", "adapters")
    columns = [*PLACE, "seed", "stream", "set", *METRICS]
    frame = pd.DataFrame([_row(record) for record in found if not record.error], columns=columns)
    sets: dict[str, set[str]] = {}  # by protocol
    for record in found:
        sets.setdefault(record.place[2], set()).add(record.on)
    return AdaptationTable(found[0].suite, frame, _means(frame, sets), _notes(found))


def _notes(records: Sequence[Record]) -> list[str]:
    """Say what failed: a line for each adapter and reason, with the sets."""
    failed: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.error:
            place = f"{r.model} (seed {r.seed}), {r.adapter} ({r.place[2]})"
            failed.setdefault((place, r.error), []).append(r.on)
    return [f"{place} failed on {', '.join(sorted(set(sets)))}: {e}" for (place, e), sets in failed.items()]


def _row(record: Record) -> dict[str, Any]:
    values = {name: record.value(name) for name in METRICS}
    seeds = {"seed": record.seed, "stream": record.seeds["stream"]}
    return dict(zip(PLACE, record.place, strict=True)) | seeds | {"set": record.on} | values


def _means(frame: pd.DataFrame, sets: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """Average over sets, then over streams and models' seeds; by model and protocol, the least error first."""
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
