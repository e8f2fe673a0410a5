"""What the records of one or several runs of a suite say, gathered by model, adapter and protocol."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import RecordsError
from harness.records import Record, read_manifest, read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

GROUPS = ("near", "far", "csid")
Place = tuple[str, str, str]  # model, adapter, protocol


@dataclass
class Row:
    """What the records of all seeds say of one scorer at one place."""

    scorer: str
    by_set: dict[str, dict[int, Record]] = field(default_factory=dict)  # set: seed: record

    def seeds(self) -> set[int]:
        """Give the seeds of which it has a record, be it of a failure."""
        return {seed for of_set in self.by_set.values() for seed in of_set}

    def records(self) -> Iterator[Record]:
        """Yield its records, set by set."""
        for of_set in self.by_set.values():
            yield from of_set.values()

    def value(self, name: str, seed: int, metric: str) -> float:
        """Give a metric of one set and seed; NaN where it was not measured."""
        measured = self.by_set.get(name, {}).get(seed, {}).get("metrics", {}).get(metric)
        return float(measured["value"]) if measured else math.nan

    def signature(self) -> str | None:
        """Say what the per-sample scores are: equal for scorers that are one under two names, None for a gap."""
        if not self.by_set or not all(record["scores"] for record in self.records()):
            return None
        scores = {
            name: {seed: r["scores"] for seed, r in seeds.items()} for name, seeds in self.by_set.items()
        }
        return json.dumps(scores, sort_keys=True)


@dataclass(frozen=True)
class Runs:
    """What the records of one or several runs of a suite say, gathered to be compared."""

    suite: str
    fpr: str  # "fpr95_id" or "fpr95_ood"
    sets: dict[str, str]  # set: group, in the suite's order
    rows: dict[Place, dict[str, Row]]  # by scorer; one that does not apply has a row without records
    accuracies: dict[Place, dict[int, dict[str, float]]]  # on ID, with their intervals, by seed


def read_runs(folders: Sequence[Path]) -> Runs:
    """Read runs of one suite; of a cell that several hold, the last one's record counts.

    Raises RecordsError for folders without records, or with records that must not be compared.
    """
    records = {r["cell_id"]: r for folder in folders for r in read_records(folder)}
    scores = [record for record in records.values() if record["kind"] == "score"]
    if not scores:
        raise RecordsError(
            f"no records in {', '.join(map(str, folders))}. Run a suite first: ood-harness run SUITE"
        )
    _require_comparable(scores)
    manifests = [read_manifest(folder) for folder in folders]
    accuracies: dict[Place, dict[int, dict[str, float]]] = {}
    for r in records.values():
        if r["kind"] == "model" and r["ood"] is None:
            accuracies.setdefault(place_of(r), {})[r["seeds"]["model"]] = r["metrics"]["accuracy"]
    return Runs(
        suite=scores[0]["suite"],
        fpr=f"fpr95_{manifests[0].get('fpr', 'id')}",
        sets=_sets_in_order(scores, manifests[0]),
        rows=_by_place(scores, manifests),
        accuracies=accuracies,
    )


def mean_over_sets(row: Row, seed: int, sets: Mapping[str, str], group: str, metric: str) -> float:
    """Average one seed's metric over a group's sets; `all` is the mean of the near mean and the far mean.

    NaN where a set's metric is missing, and where the group has no sets.
    """

    def mean(name: str) -> float:
        values = [row.value(member, seed, metric) for member, of in sets.items() if of == name]
        return math.fsum(values) / len(values) if values else math.nan

    if group != "all":
        return mean(group)
    means = [mean(name) for name in ("near", "far") if name in sets.values()]
    return math.fsum(means) / len(means) if means else math.nan


def place_of(record: Mapping[str, Any]) -> Place:
    """Name where a record or block belongs: its model, adapter and protocol."""
    return record["model"], record["adapter"], record["protocol"]


def _by_place(
    scores: Iterable[Record], manifests: Iterable[Mapping[str, Any]]
) -> dict[Place, dict[str, Row]]:
    """Gather the rows of each place; a scorer that does not apply there has a row without records."""
    places: dict[Place, dict[str, Row]] = {}
    for record in scores:
        row = places.setdefault(place_of(record), {}).setdefault(record["scorer"], Row(record["scorer"]))
        row.by_set.setdefault(record["ood"], {})[record["seeds"]["model"]] = record
    for manifest in manifests:
        for absent in (a for a in manifest.get("not_applicable", []) if "scorer" in a):
            places.setdefault(place_of(absent), {}).setdefault(absent["scorer"], Row(absent["scorer"]))
    return places


def _sets_in_order(scores: Sequence[Record], manifest: Mapping[str, Any]) -> dict[str, str]:
    groups = {record["ood"]: record["group"] for record in scores}
    known = [name for name in manifest.get("sets", []) if name in groups]
    order = [*known, *sorted(set(groups) - set(known))]
    return {name: groups[name] for group in GROUPS for name in order if groups[name] == group}


def _require_comparable(scores: Sequence[Record]) -> None:
    """Refuse to put on one board what was not measured alike, and say which."""
    for key, what in (("suite", "suites"), ("suite_digest", "suite digests"), ("protocol", "protocols")):
        found = sorted({record[key] for record in scores})
        if len(found) > 1:
            raise RecordsError(f"the records are of different {what}: {', '.join(found)}. Give one at a time")
    for side in ("id", "ood"):
        data: dict[str, str] = {}
        for record in scores:
            name, digest = record[side], record["data"][side]
            if digest is not None and data.setdefault(name, digest) != digest:
                raise RecordsError(
                    f"records of {name!r} are of different data: {data[name][:8]} and {digest[:8]}. "
                    "Give runs over the same data"
                )
