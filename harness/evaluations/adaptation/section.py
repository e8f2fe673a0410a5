"""The adapters of a suite: which ones, under which protocols, and on which streams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from harness.base.errors import InputError, unknown_name
from harness.base.toml import Table
from harness.data.mixtures import Mixer, Mixture
from harness.data.sets import CSID
from harness.data.tables import Seed
from harness.engine.plan import Planned, taken
from harness.engine.suite import Named, PluginEntry, Section, Suite
from harness.evaluations.adaptation.protocols import EPISODIC, MIXED, PROTOCOLS
from harness.evaluations.scores.section import ScoreSection
from harness.reports.record import SEPARATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.contract.registry import Registry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


FEWEST_STREAMS = 5  # for an interval, if a suite names no seeds
MIXTURES = (MIXED, SEPARATE)  # the protocols with OOD in the streams, if a suite has OOD and scorers


def _known(protocol: str) -> str:
    if protocol not in (*PROTOCOLS, SEPARATE):
        raise ValueError(str(unknown_name("protocol", protocol, (*PROTOCOLS, SEPARATE), valid_label="Valid")))
    return protocol


Protocols = Annotated[
    list[Annotated[str, AfterValidator(_known)]], BeforeValidator(_listed), Field(min_length=1)
]


class AdapterEntry(PluginEntry):
    """A test-time adapter with hyperparameters, and the protocols that it runs under."""

    protocol: Protocols = [EPISODIC]


def _whole(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    if min(shares) < 0 or not math.isclose(sum(shares), 1) or not 0 < shares[2] < 1:
        raise ValueError(
            f"shares {list(shares)} are no mixture. Give the shares of ID, shifted ID and OOD: they add up to 1, and "
            "OOD has more than 0 and less than 1"
        )
    return shares


Shares = Annotated[tuple[float, float, float], AfterValidator(_whole)]


class AdaptationTable(Table):
    """The streams of shifted sets, and of mixtures of ID and OOD: the same for all adapters."""

    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None  # of the streams' order
    batch_size: Annotated[int, Field(gt=0)] | None = None  # None: the suite's
    concentration: Annotated[float, Field(gt=0)] = 0.1  # of the Dirichlet that correlates labels in time
    after: bool = True  # forward each batch once more after its update, for the error after adaptation
    shares: Annotated[list[Shares], Field(min_length=1)] | None = (
        None  # of ID, shifted ID and OOD in a stream
    )
    shifts: list[str] | None = None  # the shifts of streams with OOD; None: all that corrupt ID test
    size: Annotated[int, Field(gt=1)] = 2000  # images in a stream with OOD, at most
    refit: Annotated[int, Field(ge=0)] = 0  # training images for fitting scorers again, after adapting

    @property
    def closed_seeds(self) -> list[int]:
        """The seeds of streams of shifted ID alone."""
        return [0] if self.seeds is None else self.seeds

    @property
    def open_seeds(self) -> list[int]:
        """The seeds of streams with OOD, over which intervals are taken."""
        return list(range(FEWEST_STREAMS)) if self.seeds is None else self.seeds


class AdaptationSection(Section):
    """The keys `adapters` and `adaptation`."""

    adapters: list[Annotated[AdapterEntry, Named]] = []
    adaptation: AdaptationTable = AdaptationTable()

    @classmethod
    def at_most(cls, suite: Suite, limit: int) -> dict[str, object]:
        """Shorten the streams of ID and OOD."""
        table = settings(suite)
        return {"adaptation": table.model_copy(update={"size": min(table.size, max(limit, 2))})}


@dataclass(frozen=True)
class PlannedAdapter(Planned):
    """An adapter with its hyperparameters, under one protocol."""

    protocol: str

    @property
    def title(self) -> str:
        """Its name among the adapters of a suite."""
        return f"{self.label} ({self.protocol})"


def settings(suite: Suite) -> AdaptationTable:
    """Return a suite's [adaptation]."""
    return suite.section(AdaptationSection).adaptation


def batch_size(suite: Suite) -> int:
    """Return the number of images in a batch of an adapter's stream."""
    return settings(suite).batch_size or suite.batch_size


def planned_adapters(suite: Suite, registry: Registry) -> list[PlannedAdapter]:
    """Resolve the adapters of a suite, each once per protocol."""
    return [
        PlannedAdapter(*once, protocol)
        for entry in suite.section(AdaptationSection).adapters
        for once in [taken("adapter", entry, registry, suite.limits.isolation)]
        for protocol in entry.protocol
    ]


def adapter_needs(adapter: PlannedAdapter) -> frozenset[str]:
    """Return the needs of an adapter's cells: its own, and predictions."""
    return frozenset({"logits", *adapter.needs})


def open_protocols(suite: Suite) -> tuple[str, ...]:
    """Return the protocols under which an adapter's stream holds OOD: none without scorers that detect it."""
    has_ood = any(entry.role == "test" for entry in suite.ood)
    return MIXTURES if suite.section(ScoreSection).scorers and has_ood else ()


def adapters(plan: Plan, *, meets_ood: bool) -> list[PlannedAdapter]:
    """List the adapters of a plan whose streams hold OOD, or those whose streams hold shifted ID only."""
    protocols = open_protocols(plan.suite)
    found = [worker for worker in plan.named("adapters") if isinstance(worker, PlannedAdapter)]
    return [adapter for adapter in found if (adapter.protocol in protocols) == meets_ood]


def mixtures(plan: Plan, adapter: PlannedAdapter) -> Iterator[Mixture]:
    """Yield the mixtures of one adapter: every OOD set with every share and shift.

    Separate streams are made with the first shares only.
    """
    named, shares = settings(plan.suite).shifts, _shares(plan.suite)
    shifts = [e for e in plan.sets if e.shifts_id and (named is None or e.name in named)]
    for of_parts in shares if adapter.protocol != SEPARATE else shares[:1]:
        for ood in (entry for entry in plan.sets if entry.group != CSID):
            for shift in shifts if of_parts[1] else [None]:
                yield Mixture(of_parts, ood, shift)


def check(plan: Plan) -> None:
    """Raise InputError for adapters without a set to adapt to, and for shares and shifts that cannot be made."""
    suite = plan.suite
    asked = {p for entry in suite.section(AdaptationSection).adapters for p in entry.protocol}
    opened = set(open_protocols(suite))
    if SEPARATE in asked and not opened:
        raise InputError(
            "an adapter under 'separate' needs OOD and scorers. Name scorers and [[ood]], or another protocol"
        )
    if asked - opened and not suite.shift:
        raise InputError("adapters adapt to shifted ID, and there is no [[shift]]. Name some")
    if opened & asked and any(csid for _, csid, _ in _shares(suite)) and not _corrupts_id(suite):
        raise InputError(
            "adaptation.shares ask for shifted ID, but no [[shift]] corrupts ID test, and the OOD of a stream must "
            "carry the same shift. Name a corruption, or give shares without shifted ID"
        )
    shifts = [entry.name for entry in plan.sets if entry.shifts_id]
    for name in settings(suite).shifts or ():
        if name not in shifts:
            raise unknown_name("shift that corrupts", name, shifts, valid_label="In the suite")


def _shares(suite: Suite) -> list[tuple[float, float, float]]:
    """Return the shares of ID, shifted ID and OOD. Default: half OOD, and ID shifted if there are shifts."""
    default = (0.0, 0.5, 0.5) if _corrupts_id(suite) else (0.5, 0.0, 0.5)
    return settings(suite).shares or [default]


def _corrupts_id(suite: Suite) -> bool:
    return any(entry.corrupts_id for entry in suite.shift)


def mixer(job: Job) -> Mixer:
    """Return the maker of a run's mixed streams, with the size and batches of the suite's [adaptation]."""
    suite, test = job.plan.suite, job.sets.id_data.test
    return Mixer(test, job.plan.registry, batch_size(suite), settings(suite).size)
