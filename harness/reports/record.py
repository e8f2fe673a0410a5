"""One record: what was measured of one cell, or why it could not be. The one module that spells a record's keys.

A record is one line of JSON. Lines without `schema` are of the first schema; a reader refuses a newer one than its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

SCHEMA = 1

# Kinds of records.
SCORE = "score"
MODEL = "model"
PROBE = "probe"
ADAPTATION = "adaptation"
ESTIMATE = "estimate"

ID = "id"  # the ID test stream, among the names of sets
SOURCE = "source"  # the adapter that adapts nothing
SEPARATE = "separate"  # the protocol in which every dataset is a stream of its own

# Flags of a record.
SATURATED = "saturated"  # so near 0 or 1 that the interval says little
TRANSDUCTIVE = "transductive"  # its scorer saw the whole mixture of ID and OOD at once
TRAINED_ON = "trained_on"  # the model was trained to reject this very dataset

Place = tuple[str, str, str]  # model, adapter, protocol
MetricValue = Mapping[str, float | None]  # value, lo, hi


@dataclass(frozen=True)
class Record:
    """What one cell's measurement found. `extra` holds the keys of kinds that plugins bring."""

    kind: str
    suite: str
    suite_digest: str
    model: str
    id: str  # the ID dataset
    seeds: Mapping[str, Any]  # model, split, fit, stream, bootstrap
    data: Mapping[str, str | None]  # digests of what was measured on: id, ood
    cell_id: str  # the place of the number
    code_id: str = ""  # all that the number depends on; "" if its model or set could not be opened
    plugin: str = ""
    plugin_version: str = ""
    adapter: str = SOURCE
    protocol: str = SEPARATE
    scorer: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    ood: str | None = None  # the set; None: ID test
    group: str = ""
    n_id: int = 0
    n_ood: int | None = None
    metrics: Mapping[str, MetricValue] = field(default_factory=dict)
    scores: Mapping[str, str] | None = None  # digests of the per-sample scores: id, ood
    flags: Sequence[str] = ()
    error: str | None = None
    # Only some kinds say what follows.
    probe: str | None = None
    estimator: str | None = None
    needs: Sequence[str] = ()  # of the estimator
    shift: str | None = None  # the kind of shift of an estimator's set
    mixture: Mapping[str, Any] | None = None  # percent, shift, size, batch_size of streams of ID and OOD
    by_stream: Mapping[str, Sequence[float]] = field(default_factory=dict)
    facts: Mapping[str, float] | None = None
    variants: Mapping[str, float] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Record:
        """Read a record from its content. Raises KeyError, TypeError or ValueError for what is none."""
        schema = content.get("schema", 1)
        if schema > SCHEMA:
            raise ValueError(f"its schema is {schema}, and this version reads up to {SCHEMA}")
        known = {name: value for name, value in content.items() if name in _NAMES}
        return cls(**known, extra={k: v for k, v in content.items() if k not in _NAMES and k != "schema"})

    def content(self) -> dict[str, Any]:
        """Return the record as it is written: what only some kinds say is left out by the others."""
        said = {name: getattr(self, name) for name in _NAMES}
        kept = {name: v for name, v in said.items() if name not in _OPTIONAL or v != _OPTIONAL[name]}
        return {"schema": SCHEMA, **kept, **self.extra}

    def line(self) -> str:
        """Write the record as one line of JSON."""
        return json.dumps(self.content(), sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"

    @property
    def place(self) -> Place:
        """Its model, adapter and protocol, with the shares of what it mixes."""
        return place_of(self.content()) if self.mixture else (self.model, self.adapter, self.protocol)

    @property
    def seed(self) -> int:
        """The seed of its model."""
        return int(self.seeds["model"])

    @property
    def on(self) -> str:
        """The set by name, ID test included."""
        return self.ood or ID

    def value(self, metric: str) -> float | None:
        """Return a metric's value; None if it was not measured."""
        return self.metrics.get(metric, {}).get("value")

    @property
    def order(self) -> tuple[Any, ...]:
        """What a journal is sorted by."""
        names = (self.kind, self.suite, self.model, self.adapter, self.protocol, self.scorer, self.probe)
        return (*(name or "" for name in (*names, self.estimator, self.ood)), self.seed, self.cell_id)


_NAMES = [one.name for one in fields(Record) if one.name != "extra"]
_OPTIONAL: Mapping[str, object] = {  # what only some kinds say, with the defaults
    **dict.fromkeys(("probe", "estimator", "shift", "mixture", "facts", "variants")),
    "needs": (),
    "by_stream": {},
}


def place_of(entry: Mapping[str, Any]) -> Place:
    """Name where a block of paired.json or an entry of run.json belongs, as Record.place does."""
    mixture = entry.get("mixture")
    protocol = f"{entry['protocol']} {mixture['percent']}" if mixture else entry["protocol"]
    return entry["model"], entry["adapter"], protocol
