"""The protocols of adaptation on shifted ID: the sets of one passage of an adapter, and the order of their samples.

A new protocol is one entry of PROTOCOLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.data.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.contract.selection import Selection
    from harness.data.sets import SetEntry

Passages = list[tuple[tuple[str, ...], ...]]  # by passage and stream: the names of its sets

EPISODIC, CONTINUAL, MIXED, CORRELATED = "episodic", "continual", "mixed", "correlated"


@dataclass(frozen=True)
class Protocol:
    """How adapters see the shifted sets.

    `passages` groups the sets into passages and streams; each passage starts with the model as it was trained.
    `stream` orders the samples of one stream, by batch size, seed and concentration (of the Dirichlet).
    """

    passages: Callable[[Sequence[SetEntry]], Passages]
    stream: Callable[[Sequence[Selection], int, int, float], Stream]


def _each(entries: Sequence[SetEntry]) -> Passages:
    return [((entry.name,),) for entry in entries]


def _by_severity(entries: Sequence[SetEntry]) -> Passages:
    """Let a model go on from set to set of one severity; sets without a severity form one passage."""
    severities = list(dict.fromkeys(entry.severity for entry in entries))
    return [tuple((e.name,) for e in entries if e.severity == severity) for severity in severities]


def _together(entries: Sequence[SetEntry]) -> Passages:
    return [(tuple(entry.name for entry in entries),)]


def _shuffled(parts: Sequence[Selection], batch_size: int, seed: int, concentration: float) -> Stream:
    return Stream.mixed(parts, batch_size=batch_size, seed=seed)


def _in_runs(parts: Sequence[Selection], batch_size: int, seed: int, concentration: float) -> Stream:
    return Stream.correlated(parts[0], batch_size=batch_size, concentration=concentration, seed=seed)


def passages(protocol: str, entries: Sequence[SetEntry]) -> Passages:
    """Group the shifted sets by a protocol. Raises InputError unless each set comes exactly once."""
    found = PROTOCOLS[protocol].passages(entries)
    names = [name for streams in found for of_stream in streams for name in of_stream]
    if sorted(names) != sorted(entry.name for entry in entries):
        raise InputError(
            f"the protocol {protocol!r} must give each shifted set once, and gives {', '.join(names)}"
        )
    return found


PROTOCOLS: Mapping[str, Protocol] = {
    EPISODIC: Protocol(_each, _shuffled),
    CONTINUAL: Protocol(_by_severity, _shuffled),
    MIXED: Protocol(_together, _shuffled),
    CORRELATED: Protocol(_each, _in_runs),
}
