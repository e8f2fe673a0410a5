"""One record: the numbers of one cell, or its error. The only module that spells the keys of a record.

A record is one line of JSON. Lines without `schema` are of the first schema; a reader refuses a newer one than its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from harness.base.checksums import seal

SCHEMA = 1

# Kinds of records.
SCORE = "score"
MODEL = "model"
PROBE = "probe"
CURVE = "curve"
ADAPTATION = "adaptation"
ESTIMATE = "estimate"

ID = "id"  # the name of ID test among the sets
SOURCE = "source"  # the name of no adaptation among the adapters
SEPARATE = "separate"  # the protocol in which every dataset is a stream of its own
NOT_LOADED = "model: "  # the start of the error of a cell whose model could not be loaded

# Flags of a record.
SATURATED = "saturated"  # so near 0 or 1 that the interval is of little use
TRANSDUCTIVE = "transductive"  # its scorer saw the whole mixture of ID and OOD at once
SEEN = "seen"  # it rests on validation images that the model, for all that is known, was trained on
UNSTABLE = "unstable"  # which of ID and OOD its scorer puts higher turns with the parameters
TRAINED_ON = "trained_on"  # the model was trained to reject this dataset

Place = tuple[str, str, str]  # model, adapter, protocol
MetricValue = Mapping[str, float | None]  # value, lo, hi


class NewerSchemaError(ValueError):
    """A record that a newer version wrote."""


@dataclass(frozen=True)
class Record:
    """The result of one cell. `extra` holds the keys of kinds that come from plugins."""

    kind: str
    suite: str
    suite_digest: str
    model: str
    id: str  # the ID dataset
    seeds: Mapping[str, Any]  # model, split, fit, stream, bootstrap
    data: Mapping[str, str | None]  # digests of the data: id, ood
    cell_id: str  # digest of the place of the number
    code_id: str = ""  # digest of all that the number depends on; "" if its model or set could not be opened
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
    # The keys of some kinds only.
    probe: str | None = None
    epoch: int | None = None  # of the training, after which a probe was measured
    estimator: str | None = None
    needs: Sequence[str] = ()  # of the estimator
    definition: str | None = None  # which of its definitions the estimator used, if it has several
    shift: str | None = None  # of an estimator's set: the kind of shift
    mixture: Mapping[str, Any] | None = None  # percent, shift, size, batch_size of streams of ID and OOD
    by_stream: Mapping[str, Sequence[float]] = field(default_factory=dict)
    facts: Mapping[str, float] | None = None
    variants: Mapping[str, float] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Record:
        """Read a record from its content. Raises KeyError, TypeError or ValueError if it is no record."""
        schema = content.get("schema", 1)
        if not isinstance(schema, int):
            raise ValueError(f"its schema is {schema!r}")
        if schema > SCHEMA:
            raise NewerSchemaError(f"its schema is {schema}, and this version reads up to {SCHEMA}")
        known = {name: value for name, value in content.items() if name in _NAMES}
        for name, value in known.items():
            _require_type(name, value)
        return cls(**known, extra={k: v for k, v in content.items() if k not in _NAMES and k != "schema"})

    def content(self) -> dict[str, Any]:
        """Return the record as it is written, without the keys of other kinds."""
        content = {name: getattr(self, name) for name in _NAMES}
        kept = {name: v for name, v in content.items() if name not in _OPTIONAL or v != _OPTIONAL[name]}
        return {"schema": SCHEMA, **kept, **self.extra}

    def line(self) -> str:
        """Write the record as one line of JSON, with its checksum."""
        return json.dumps(seal(self.content()), sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"

    @property
    def place(self) -> Place:
        """Its model, adapter and protocol, with the shares of a mixture."""
        return place_of(self.content()) if self.mixture else (self.model, self.adapter, self.protocol)

    @property
    def title(self) -> str:
        """Its name in messages: method, set, model, seed and adapter."""
        method = self.scorer or self.probe or self.estimator or self.kind
        adapter = "" if self.adapter == SOURCE else f" + {self.adapter}"
        return f"{method} on {self.on} with {title_of_model(self.model, self.seed)}{adapter}"

    @property
    def seed(self) -> int:
        """The seed of its model."""
        return int(self.seeds["model"])

    @property
    def on(self) -> str:
        """The name of its set, ID test included."""
        return self.ood or ID

    def value(self, metric: str) -> float | None:
        """Return a metric's value; None if it was not measured."""
        return self.metrics.get(metric, {}).get("value")

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key of a journal."""
        names = (self.kind, self.suite, self.model, self.adapter, self.protocol, self.scorer, self.probe)
        return (*(name or "" for name in (*names, self.estimator, self.ood)), self.seed, self.cell_id)


_NAMES = [one.name for one in fields(Record) if one.name != "extra"]
_KINDS = {"str": str, "int": int, "Mapping": Mapping, "Sequence": Sequence}
_TYPES = {
    one.name: (
        _KINDS[str(one.type).partition("[")[0].partition(" ")[0]],
        "None" in str(one.type).rpartition("]")[2],
    )
    for one in fields(Record)
}  # by name: the type, and whether it may be None
_OPTIONAL: Mapping[str, object] = {  # the keys of some kinds only, with the defaults
    **dict.fromkeys(("probe", "epoch", "estimator", "definition", "shift", "mixture", "facts", "variants")),
    "needs": (),
    "by_stream": {},
}


def _require_type(name: str, value: object) -> None:
    """Raise ValueError for a value of a record that is of another type: readers would fail on it later."""
    kind, may_be_none = _TYPES[name]
    is_right = isinstance(value, kind) or (value is None and may_be_none)
    if name == "metrics" and isinstance(value, Mapping):
        is_right = all(isinstance(metric, Mapping) for metric in value.values())
    if name == "seeds" and isinstance(value, Mapping):
        is_right = isinstance(value.get("model"), int)
    if not is_right:
        raise ValueError(f"its {name} cannot be {str(value)[:40]!r}")


def title_of_model(label: str, seed: int) -> str:
    """Return the name of one trained model, by which run.json lists it."""
    return f"{label} (seed {seed})"


def place_of(entry: Mapping[str, Any]) -> Place:
    """Return the place of a block of paired.json or an entry of run.json, as Record.place does."""
    mixture = entry.get("mixture")
    protocol = f"{entry['protocol']} {mixture['percent']}" if mixture else entry["protocol"]
    return entry["model"], entry["adapter"], protocol
