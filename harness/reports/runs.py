"""The records of one or several runs of a suite, gathered by model, adapter and protocol for comparison."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base.errors import RecordsError, unknown_name
from harness.reports.record import ADAPTATION, MODEL, SCORE, SEPARATE, Place, Record, place_of
from harness.reports.records import gathered, read_manifest, read_records, require_one_suite
from harness.statistics.intervals import seed_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

GROUPS = ("near", "far", "csid")


@dataclass
class Row:
    """The records of one scorer at one place, for all seeds."""

    scorer: str
    by_set: dict[str, dict[int, Record]] = field(default_factory=dict)  # set: seed: record

    def seeds(self) -> set[int]:
        """Return the seeds that have a record, also of a failure."""
        return {seed for of_set in self.by_set.values() for seed in of_set}

    def records(self) -> Iterator[Record]:
        """Yield its records, set by set."""
        for of_set in self.by_set.values():
            yield from of_set.values()

    def value(self, name: str, seed: int, metric: str) -> float:
        """Return a metric of one set and seed; NaN if it was not measured."""
        record = self.by_set.get(name, {}).get(seed)
        value = None if record is None else record.value(metric)
        return math.nan if value is None else value

    def by_stream(self, name: str, seed: int, metric: str) -> Sequence[float]:
        """Return a metric of one set and model's seed by stream; () for a set that is no stream."""
        record = self.by_set.get(name, {}).get(seed)
        return () if record is None else record.by_stream.get(metric, ())

    def signature(self) -> str | None:
        """Return a digest of all per-sample scores, equal for one scorer under two names; None if some are missing."""
        if not self.by_set or not all(record.scores for record in self.records()):
            return None
        scores = {name: {seed: r.scores for seed, r in seeds.items()} for name, seeds in self.by_set.items()}
        return json.dumps(scores, sort_keys=True)


@dataclass(frozen=True)
class Runs:
    """The records of one or several runs of a suite."""

    suite: str
    protocol: str  # with the shares of a mixture
    fpr: str  # "fpr95_id" or "fpr95_ood"
    sets: dict[str, str]  # set: group, in the suite's order
    rows: dict[Place, dict[str, Row]]  # by scorer; a scorer that does not apply has a row without records
    accuracies: dict[Place, dict[int, dict[str, float]]]  # on ID, with their intervals, by seed
    models: dict[str, Mapping[str, Any]]  # by title: what run.json says of each


def protocols_of(folders: Sequence[Path]) -> list[str]:
    """List the protocols under which runs have scores; the one without adaptation comes first."""
    records = (record for folder in folders for record in read_records(folder))
    found = {record.place[2] for record in records if record.kind == SCORE}
    return sorted(found, key=lambda protocol: (protocol != SEPARATE, protocol))


def read_runs(folders: Sequence[Path], protocol: str | None = None) -> Runs:
    """Read runs of one suite under one protocol; if several runs hold a cell, the last one's record counts.

    Raises RecordsError for folders without records, for records that must not be compared, and for several protocols
    if none is named; UnknownNameError for an unknown protocol.
    """
    records = gathered(folders)
    scores = [record for record in records if record.kind == SCORE]
    if not scores:
        raise RecordsError(
            f"no records in {', '.join(map(str, folders))}. Run a suite first: ood-harness run SUITE"
        )
    protocol = _chosen(protocol, sorted({record.place[2] for record in scores}))
    scores = [record for record in scores if record.place[2] == protocol]
    require_comparable(scores)
    manifests = [read_manifest(folder) for folder in folders]
    return Runs(
        suite=scores[0].suite,
        protocol=protocol,
        fpr=f"fpr95_{manifests[0].get('fpr', 'id')}",
        sets=_sets_in_order(scores, manifests[0]),
        rows=_by_place(scores, manifests, protocol),
        accuracies=_accuracies(records, protocol),
        models={title: of for manifest in manifests for title, of in manifest.get("models", {}).items()},
    )


def mean_over_sets(row: Row, seed: int, sets: Mapping[str, str], group: str, metric: str) -> float:
    """Average one seed's metric over a group's sets; `all` is the mean of the near mean and the far mean.

    NaN if a set's metric is missing, and for a group without sets.
    """
    return mean_of_group({name: row.value(name, seed, metric) for name in sets}, sets, group)


def mean_of_group(values: Mapping[str, float], sets: Mapping[str, str], group: str) -> float:
    """Average values of sets over a group, as mean_over_sets does."""

    def mean(name: str) -> float:
        members = [values[member] for member, of in sets.items() if of == name]
        return math.fsum(members) / len(members) if members else math.nan

    if group != "all":
        return mean(group)
    means = [mean(name) for name in ("near", "far") if name in sets.values()]
    return math.fsum(means) / len(means) if means else math.nan


def _chosen(protocol: str | None, found: list[str]) -> str:
    if protocol is None and len(found) > 1:
        raise RecordsError(
            f"the records are of different protocols: {', '.join(found)}. Give one at a time, with --protocol"
        )
    if protocol is not None and protocol not in found:
        raise unknown_name("protocol", protocol, found, valid_label="Measured")
    return protocol or found[0]


def _accuracies(records: Iterable[Record], protocol: str) -> dict[Place, dict[int, dict[str, Any]]]:
    """Gather accuracies on ID: on ID test, or on the ID samples of mixed streams, each stream a replicate."""
    found: dict[Place, dict[int, dict[str, Any]]] = {}
    errors: dict[Place, dict[int, dict[int, list[float]]]] = {}  # of the sets, by model's seed and stream
    for r in records:
        place, seed = r.place, r.seed
        if place[2] != protocol or r.error:
            continue
        if r.kind == MODEL and r.ood is None:
            found.setdefault(place, {})[seed] = dict(r.metrics["accuracy"])
        if r.kind == ADAPTATION:
            of_stream = errors.setdefault(place, {}).setdefault(seed, {})
            of_stream.setdefault(r.seeds["stream"], []).append(float(r.value("error") or 0.0))
    for place, by_seed in errors.items():
        for seed, by_stream in by_seed.items():
            summary = seed_interval([1 - math.fsum(values) / len(values) for values in by_stream.values()])
            low, high = summary.interval or (None, None)
            found.setdefault(place, {})[seed] = {"value": summary.mean, "lo": low, "hi": high}
    return found


def _by_place(
    scores: Iterable[Record], manifests: Iterable[Mapping[str, Any]], protocol: str
) -> dict[Place, dict[str, Row]]:
    """Gather the rows of each place; a scorer that does not apply has a row without records."""
    places: dict[Place, dict[str, Row]] = {}
    for record in scores:
        scorer = str(record.scorer)
        row = places.setdefault(record.place, {}).setdefault(scorer, Row(scorer))
        row.by_set.setdefault(record.on, {})[record.seed] = record
    for manifest in manifests:
        listed = [a for a in manifest.get("not_applicable", []) if "scorer" in a]
        for absent in (a for a in listed if place_of(a)[2] == protocol):
            places.setdefault(place_of(absent), {}).setdefault(absent["scorer"], Row(absent["scorer"]))
    return places


def _sets_in_order(scores: Sequence[Record], manifest: Mapping[str, Any]) -> dict[str, str]:
    groups = {record.on: record.group for record in scores}
    known = [name for name in manifest.get("sets", []) if name in groups]
    order = [*known, *sorted(set(groups) - set(known))]
    return {name: groups[name] for group in GROUPS for name in order if groups[name] == group}


def _cut(record: Record) -> list[Any] | None:
    mixture = record.mixture
    return [mixture["size"], mixture["batch_size"]] if mixture else None


def require_comparable(scores: Sequence[Record]) -> None:
    """Raise RecordsError for records that were measured on different data or streams."""
    require_one_suite(scores, "records")
    streams = {json.dumps([_cut(record), record.seeds.get("stream")]) for record in scores if record.mixture}
    if len(streams) > 1:
        raise RecordsError(
            "the records are of streams of different sizes, batches or seeds. Give runs of the same [adaptation]"
        )
    for side in ("id", "ood"):
        data: dict[str, str] = {}
        for record in scores:
            name, digest = record.id if side == "id" else record.on, record.data[side]
            if digest is not None and data.setdefault(name, digest) != digest:
                raise RecordsError(
                    f"records of {name!r} are of different data: {data[name][:8]} and {digest[:8]}. "
                    "Give runs over the same data"
                )
