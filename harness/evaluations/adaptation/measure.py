"""Runs the adapters of one model under their protocols, on streams of shifted ID."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from harness.base import digests
from harness.base.errors import InputError
from harness.base.progress import progress_bar
from harness.data.sets import CSID
from harness.data.streams import Stream
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, describe
from harness.evaluations.adaptation import section
from harness.evaluations.adaptation.prepared import Prepared, fit_digests
from harness.evaluations.adaptation.protocols import PROTOCOLS
from harness.evaluations.adaptation.section import (
    AdaptationSection,
    adapters,
    batch_size,
    planned_adapters,
    settings,
)
from harness.evaluations.adaptation.tally import error_of, tallied
from harness.evaluations.table_report import TableReport
from harness.reports.record import ADAPTATION, ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.contract.registry import Registry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.engine.suite import Suite
    from harness.evaluations.adaptation.passage import Passage
    from harness.evaluations.adaptation.section import PlannedAdapter
    from harness.evaluations.adaptation.tally import Tally
    from harness.reports.text import Text

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True, eq=False)
class AdaptationCell(Cell):
    """A model, an adapter under a protocol, the seed of a stream, and a shifted set."""

    worker: PlannedAdapter
    seed: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Course:
    """One passage that is to be made: an adapter under a protocol, over the streams of a seed."""

    adapter: PlannedAdapter
    seed: int
    names: tuple[tuple[str, ...], ...]  # of the sets in each stream

    @property
    def sets(self) -> list[str]:
        """All its sets, in the order in which they are met."""
        return [name for names in self.names for name in names]


def _text(folders: Sequence[Path]) -> Text:
    from harness.evaluations.adaptation.table import adaptation_table
    from harness.evaluations.adaptation.text import adaptation_text

    return adaptation_text(adaptation_table(folders))


class Adaptation(Evaluation[AdaptationCell]):
    """Test-time adapters on shifted ID."""

    name = ADAPTATION
    section = AdaptationSection
    report = TableReport(
        ADAPTATION,
        "adaptation",
        "Print what adapters did to the error on shifted data, and what it cost.",
        _text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the adapters."""
        return {"adapters": planned_adapters(suite, registry)}

    def check(self, plan: Plan) -> None:
        """Raise InputError for adapters that would meet nothing."""
        section.check(plan)

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[AdaptationCell]:
        """Yield every adapter that meets shifted ID alone, on every shifted set, for every seed of the streams."""
        shifted = [entry.name for entry in plan.sets if entry.group == CSID]
        for adapter in adapters(plan, meets_ood=False):
            place = {"adapter": adapter.label, "protocol": adapter.protocol}
            for seed in settings(plan.suite).closed_seeds:
                for name in shifted:
                    what = f"stream {seed}"
                    cell_id = plan.cell_id(model, what=what, on=name, **place)
                    head = {"kind": ADAPTATION, "group": CSID, **place}
                    yield AdaptationCell(model, adapter, name, cell_id, head, seed, seed=seed)

    def begin(self, job: Job) -> Adapting:
        """Begin with one model."""
        return Adapting(job)


class Adapting(Sitting[AdaptationCell]):
    """The adapters of one model."""

    def missing(self, cell: AdaptationCell) -> NotApplicable | None:
        """Return what the adapter needs and neither the model nor the data offer."""
        return not_applicable(self._prepared, cell.worker)

    def key(self, cell: AdaptationCell) -> str:
        """Digest all that the cell's passage depends on."""
        return self._key(self._course_of(cell))

    def measure(self, cells: Sequence[AdaptationCell]) -> Iterator[tuple[AdaptationCell, Measured | Failure]]:
        """Make every passage of which a number is missing, each once."""
        pending: dict[Course, list[AdaptationCell]] = {}
        for cell in cells:
            pending.setdefault(self._course_of(cell), []).append(cell)
        model, bench = self.job.model, self.job.bench
        with progress_bar(
            total=len(pending),
            description=f"adapt {model.label} (seed {model.seed})",
            unit="passage",
            enabled=bench.progress and bool(pending),
        ) as bar:
            for course, of_course in pending.items():
                yield from self._made(course, {cell.on: cell for cell in of_course})
                bar.update()

    # Passages ---------------------------------------------------------------------------------------------------

    @property
    def _prepared(self) -> Prepared:
        return self.job.bench.shared(Prepared)

    def _course_of(self, cell: AdaptationCell) -> Course:
        return self._courses[cell.worker.label, cell.worker.protocol, cell.seed, cell.on]

    @cached_property
    def _courses(self) -> Mapping[tuple[str, str, int, str], Course]:
        """The passages, by adapter, protocol, seed and set."""
        return {
            (course.adapter.label, course.adapter.protocol, course.seed, name): course
            for adapter in adapters(self.job.plan, meets_ood=False)
            for seed in settings(self.job.plan.suite).closed_seeds
            for course in self._courses_of(adapter, seed)
            for name in course.sets
        }

    def _courses_of(self, adapter: PlannedAdapter, seed: int) -> Iterator[Course]:
        """List an adapter's passages, as its protocol cuts the shifted sets."""
        shifted = [entry for entry in self.job.plan.sets if entry.group == CSID]
        for names in PROTOCOLS[adapter.protocol].passages(shifted):
            yield Course(adapter, seed, names)

    def _made(
        self, course: Course, waiting: dict[str, AdaptationCell]
    ) -> Iterator[tuple[AdaptationCell, Measured | Failure]]:
        label = f"{course.adapter.label} ({course.adapter.protocol})"
        bench = self.job.bench
        try:
            with bench.clock.measure_with_memory("adapt", scorer=label, on=f"stream {course.seed}"):
                passage = self._prepared.passage(course.adapter, self.job.plan.suite)
                streams = self._streams(course)
                steps = passage.run(streams)
                for stream, tallies in tallied(steps, num_outputs=bench.loaded.model.num_classes):
                    names = course.names[streams.index(stream)]
                    forgetting = self._id_error(passage) if stream is streams[-1] else None
                    for part, tally in sorted(tallies.items()):
                        if cell := waiting.pop(names[part], None):
                            yield cell, Measured({"metrics": _with(forgetting, tally)})
        except Exception as error:  # a stranger's adapter may raise anything
            logger.warning("%s, adapter %s: %s", self.job.model.label, label, describe(error))
            for cell in waiting.values():
                yield cell, Failure(describe(error))

    def _streams(self, course: Course) -> list[Stream]:
        """Open the streams of a passage. Raises InputError if a set could not be opened."""
        suite, found = self.job.plan.suite, []
        stream = PROTOCOLS[course.adapter.protocol].stream
        for names in course.names:
            broken = [f for name in names if isinstance(f := self.job.sets.streams[name], Failure)]
            if broken:
                raise InputError(broken[0].message)
            parts = [self.job.sets.selection(name) for name in names]
            found.append(stream(parts, batch_size(suite), course.seed, settings(suite).concentration))
        return found

    def _id_error(self, passage: Passage) -> float:
        """Forward ID test, shuffled so that batch statistics are not those of one class, through what is left."""
        size = batch_size(self.job.plan.suite)
        return error_of(passage, Stream.mixed([self.job.sets.id_data.test], batch_size=size, seed=0))

    def _key(self, course: Course) -> str:
        adapter, loaded = course.adapter, self.job.bench.loaded
        streams = [*self._streams(course), self.job.sets.stream(ID)]
        return digests.adaptation_code_id(
            streams=[loaded.features_key(stream, layers=False) for stream in streams],
            fit=fit_digests(self.job, adapter),
            adapter=adapter.offered.spec.name,
            params=adapter.params,
            protocol=adapter.protocol,
            after=settings(self.job.plan.suite).after,
            source=adapter.offered.source,
            version=adapter.offered.version,
        )


def not_applicable(prepared: Prepared, adapter: PlannedAdapter) -> NotApplicable | None:
    """Return what an adapter needs and neither the model nor the data offer; None if it applies."""
    missing = prepared.missing(adapter)
    place = {"adapter": adapter.label, "protocol": adapter.protocol}
    return NotApplicable(place, missing) if missing else None


def _with(id_error: float | None, tally: Tally) -> dict[str, dict[str, float | None]]:
    """Add the error on ID after the passage to a tally's metrics, if it is known."""
    forgetting = {} if id_error is None else {"id_error": {"value": id_error, "lo": None, "hi": None}}
    return tally.metrics() | forgetting
