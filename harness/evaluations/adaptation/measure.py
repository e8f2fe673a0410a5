"""Runs the adapters of one model under their protocols, on streams of shifted ID."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from harness.base.strangers import RAISED, undisturbed
from harness.data.sets import CSID
from harness.data.streams import Stream
from harness.engine.evaluation import Cell, Evaluation, Measured, Sitting
from harness.engine.guard import Failure
from harness.evaluations.adaptation import section
from harness.evaluations.adaptation.prepared import Prepared
from harness.evaluations.adaptation.protocols import PROTOCOLS, passages
from harness.evaluations.adaptation.section import (
    AdaptationSection,
    adapter_needs,
    adapters,
    batch_size,
    planned_adapters,
    settings,
)
from harness.evaluations.adaptation.table import adaptation_table, adaptation_text
from harness.evaluations.adaptation.tally import error_of, tallied
from harness.evaluations.table_report import TableReport
from harness.reports.record import ADAPTATION, ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harness.contract.registry import Registry
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.engine.suite import Suite
    from harness.evaluations.adaptation.passage import Passage
    from harness.evaluations.adaptation.section import AdaptationTable, PlannedAdapter
    from harness.evaluations.adaptation.tally import Tally


@dataclass(frozen=True, eq=False)
class AdaptationCell(Cell):
    """A model, an adapter under a protocol, the seed of a stream, and a shifted set."""

    worker: PlannedAdapter
    seed: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Course:
    """One passage of an adapter under a protocol, over the streams of a seed."""

    adapter: PlannedAdapter
    seed: int
    names: tuple[tuple[str, ...], ...]  # of the sets in each stream


class Adapting(Sitting[AdaptationCell]):
    """The adapters of one model."""

    def key(self, cell: AdaptationCell) -> str:
        """Digest everything that the cell's passage depends on."""
        course, loaded = self._course_of(cell), self.job.bench.loaded
        streams = [*self._streams(course), self.job.sets.stream(ID)]
        features = [loaded.features_key(stream, layers=False) for stream in streams]
        return self.job.key(cell.worker, features, cell.worker.protocol, self._settings.after)

    def measure(self, cells: Sequence[AdaptationCell]) -> Iterator[tuple[AdaptationCell, Measured | Failure]]:
        """Make every passage of which a number is missing, each once."""
        pending: dict[Course, list[AdaptationCell]] = {}
        for cell in cells:
            pending.setdefault(self._course_of(cell), []).append(cell)
        with self.job.progress("adapt", len(pending), "passage") as bar:
            for course, of_course in pending.items():
                yield from self._made(course, {cell.on: cell for cell in of_course})
                bar.update()

    @property
    def _settings(self) -> AdaptationTable:
        return settings(self.job.plan.suite)

    def _course_of(self, cell: AdaptationCell) -> Course:
        return self._courses[cell.worker.label, cell.worker.protocol, cell.seed, cell.on]

    @cached_property
    def _courses(self) -> Mapping[tuple[str, str, int, str], Course]:
        """The passages, by adapter, protocol, seed and set: each protocol cuts the shifted sets into its own."""
        shifted = [entry for entry in self.job.plan.sets if entry.group == CSID]
        return {
            (adapter.label, adapter.protocol, seed, name): course
            for adapter in adapters(self.job.plan, meets_ood=False)
            for seed in self._settings.closed_seeds
            for names in passages(adapter.protocol, shifted)
            for course in [Course(adapter, seed, names)]
            for of_stream in names
            for name in of_stream
        }

    def _made(
        self, course: Course, waiting: dict[str, AdaptationCell]
    ) -> Iterator[tuple[AdaptationCell, Measured | Failure]]:
        """Yield the result of each set of a passage; if it breaks off, a failure for the sets that are left.

        Nothing is yielded before the passage has ended: what the adapter does to the process reaches nobody else.
        """
        label, bench = course.adapter.title, self.job.bench
        made: list[tuple[AdaptationCell, Measured | Failure]] = []
        try:
            clock = bench.clock.measure_with_memory("adapt", scorer=label, on=f"stream {course.seed}")
            with undisturbed(bench.loaded.device), clock:
                passage = bench.shared(Prepared).passage(course.adapter, self.job.plan.suite)
                streams = self._streams(course)
                steps = passage.run(streams)
                for stream, tallies in tallied(steps, num_outputs=bench.loaded.model.num_classes):
                    names = course.names[streams.index(stream)]
                    forgetting = self._id_error(passage) if stream is streams[-1] else None
                    for part, tally in sorted(tallies.items()):
                        if cell := waiting.pop(names[part], None):
                            made.append((cell, Measured({"metrics": _with(forgetting, tally)})))
        except RAISED as error:
            made += [(cell, Failure.of(error)) for cell in waiting.values()]
        yield from made

    def _streams(self, course: Course) -> list[Stream]:
        """Open the streams of a passage. Raises HarnessError if a set could not be opened."""
        stream, size = PROTOCOLS[course.adapter.protocol].stream, batch_size(self.job.plan.suite)
        return [
            stream(
                [self.job.sets.selection(name) for name in names],
                size,
                course.seed,
                self._settings.concentration,
            )
            for names in course.names
        ]

    def _id_error(self, passage: Passage) -> float:
        """Return the adapted model's error on ID test, shuffled so that no batch has one class only."""
        size = batch_size(self.job.plan.suite)
        return error_of(passage, Stream.mixed([self.job.sets.id_data.test], batch_size=size, seed=0))


def _with(id_error: float | None, tally: Tally) -> dict[str, dict[str, float | None]]:
    """Return a tally's metrics, with the error on ID after the passage if it is known."""
    forgetting = {} if id_error is None else {"id_error": {"value": id_error, "lo": None, "hi": None}}
    return tally.metrics() | forgetting


class Adaptation(Evaluation[AdaptationCell]):
    """Test-time adapters on shifted ID."""

    name = ADAPTATION
    sitting = Adapting
    section = AdaptationSection
    report = TableReport(
        ADAPTATION,
        "adaptation",
        "Print the error of adapters on shifted data, and their cost.",
        adaptation_table,
        adaptation_text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the adapters."""
        return {"adapters": planned_adapters(suite, registry)}

    def check(self, plan: Plan) -> None:
        """Raise InputError for adapters without a set to adapt to, and for a protocol that does not give each once."""
        section.check(plan)
        for adapter in adapters(plan, meets_ood=False):
            passages(adapter.protocol, [entry for entry in plan.sets if entry.group == CSID])

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[AdaptationCell]:
        """Yield every adapter whose streams have no OOD, on every shifted set, for every seed of the streams."""
        shifted = [entry.name for entry in plan.sets if entry.group == CSID]
        for adapter in adapters(plan, meets_ood=False):
            place = {"adapter": adapter.label, "protocol": adapter.protocol}
            needs = adapter_needs(adapter) | {"labels"}
            head = {"kind": ADAPTATION, "group": CSID}
            for seed in settings(plan.suite).closed_seeds:
                for name in shifted:
                    cell_id = plan.cell_id(model, what=f"stream {seed}", on=name, **place)
                    yield AdaptationCell(model, adapter, name, cell_id, place, head, needs, seed, seed=seed)
