"""Caveats of a leaderboard that its rows cannot show: second names, failures, seen datasets, too few seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.reports.record import SEPARATE, SOURCE, TRAINED_ON, TRANSDUCTIVE
from harness.statistics import inference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.reports.record import Place, Record
    from harness.reports.runs import Row


@dataclass(frozen=True)
class Remark:
    """One caveat."""

    subject: str  # the model, or the model and its adapter
    text: str
    failed: Sequence[Record] = ()  # the cells that it is about, if they failed

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


def remarks_of(
    place: Place,
    scorers: Mapping[str, Row],
    aliases: Mapping[str, str],
    sets: Mapping[str, str],
    *,
    is_split: bool,
    mixes: bool,
) -> Iterator[Remark]:
    """Yield the caveats of one place: a model, its adapter and a protocol.

    `is_split` states whether its scorers are in several folders, `mixes` whether its streams mix ID and OOD.
    """
    model, adapter, protocol = place
    for alias, first in aliases.items():
        yield Remark(model, f"{alias} gives the scores of {first}")
    for label, row in scorers.items():
        if failed := [record for record in row.records() if record.error]:
            yield Remark(model, f"{label} failed on {len(failed)} cells, first: {failed[0].error}", failed)
    records = [record for row in scorers.values() for record in row.records()]
    known = {record.on for record in records if TRAINED_ON in record.flags}
    if known:
        names = ", ".join(name for name in sets if name in known)
        yield Remark(model, f"trained to reject the datasets of {names}, so these are not unseen OOD")
    whole = {record.scorer for record in records if TRANSDUCTIVE in record.flags}
    if whole:
        names = ", ".join(label for label in scorers if label in whole)
        yield Remark(
            model,
            f"{names}: transductive, on ID and OOD mixed half and half, interval over streams; "
            "not ranked with scorers of single images",
        )
    if is_split:
        yield Remark(model, "its scorers are in several folders; run them into one folder to rank them")
    if mixes and protocol.startswith(SEPARATE) and adapter != SOURCE:
        yield Remark(
            f"{model} + {adapter}",
            "ID and OOD came in separate streams, so the statistics of a batch give the answer away: do not use "
            "these numbers as a result",
        )
    seeds = {record.seed for record in records}
    if 1 < len(seeds) < inference.FEWEST_SEEDS:
        yield Remark(
            model, f"{len(seeds)} seeds are too few for ranks; give {inference.FEWEST_SEEDS} or more"
        )
