"""Runs the adapters of one model under their protocols, and records what they did on every shifted set."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.progress import progress_bar
from harness.data.opening import CSID
from harness.data.streams import Stream
from harness.engine.recorder import ID
from harness.engine.scoring import describe
from harness.evaluations.adaptation.tally import error_of, tallied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.contract.selection import Selection
    from harness.engine.plan import PlannedAdapter, PlannedModel
    from harness.engine.recorder import Recorder
    from harness.engine.scoring import Clock
    from harness.evaluations.adaptation.passage import Passage
    from harness.evaluations.adaptation.prepared import Prepared
    from harness.evaluations.adaptation.tally import Tally
    from harness.models.loaded import LoadedModel

logger = logging.getLogger("ood_harness")

CONTINUAL, MIXED, CORRELATED = "continual", "mixed", "correlated"


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


@dataclass(frozen=True, eq=False)
class Adapting:
    """The adapters on a model, and which of their numbers the folder lacks."""

    model: PlannedModel
    loaded: LoadedModel
    recorder: Recorder
    clock: Clock
    prepared: Prepared
    progress: bool = False

    @property
    def cells(self) -> int:
        """How many numbers there are to be."""
        return len(self._shifted) * len(self._applicable) * len(self._table.closed_seeds)

    def not_applicable(self) -> list[dict[str, object]]:
        """List the adapters whose needs exceed what the model and the data offer, with what is missing."""
        place = {"model": self.model.label, "seed": self.model.seed}
        return [
            {**place, "adapter": a.label, "protocol": a.protocol, "missing": self.prepared.missing(a)}
            for a in self.recorder.plan.closed_adapters
            if self.prepared.missing(a)
        ]

    def run(self) -> None:
        """Make every passage of which a number is missing."""
        courses = list(self._courses())
        with progress_bar(
            total=len(courses),
            description=f"adapt {self.model.label} (seed {self.model.seed})",
            unit="passage",
            enabled=self.progress and bool(courses),
        ) as bar:
            for course in courses:
                code_id = self._code_id(course)
                if pending := [name for name in course.sets if not self._is_done(course, name, code_id)]:
                    self._make(course, code_id, pending)
                bar.update()

    # What there is to do ----------------------------------------------------------------------------------------

    @cached_property
    def _applicable(self) -> list[PlannedAdapter]:
        return [
            adapter for adapter in self.recorder.plan.closed_adapters if not self.prepared.missing(adapter)
        ]

    @property
    def _table(self) -> Any:
        return self.recorder.plan.suite.adaptation

    @cached_property
    def _shifted(self) -> dict[str, Selection | None]:
        """The shifted sets by name; None for one that cannot be opened."""
        found: dict[str, Selection | None] = {}
        for entry in self.recorder.plan.sets:
            if entry.group == CSID:
                stream = self.recorder.streams[entry.name]
                found[entry.name] = stream.parts[0] if isinstance(stream, Stream) else None
        return found

    def _courses(self) -> Iterator[Course]:
        """List the passages: one a set, one a severity where a model goes on, or one over all where they are mixed."""
        for adapter in self._applicable:
            for seed in self._table.closed_seeds:
                names = tuple(self._shifted)
                if adapter.protocol == CONTINUAL:
                    for sequence in self._sequences():
                        yield Course(adapter, seed, tuple((name,) for name in sequence))
                elif adapter.protocol == MIXED:
                    yield Course(adapter, seed, (names,))
                else:
                    yield from (Course(adapter, seed, ((name,),)) for name in names)

    def _sequences(self) -> list[list[str]]:
        """List the shifted sets by severity, those that are datasets of their own together, in the suite's order."""
        found: dict[int | None, list[str]] = {}
        for entry in self.recorder.plan.sets:
            if entry.group == CSID:
                found.setdefault(entry.severity, []).append(entry.name)
        return list(found.values())

    def _is_done(self, course: Course, name: str, code_id: str) -> bool:
        plan = self.recorder.plan
        cell_id = plan.adaptation_id(self.model, course.adapter, course.seed, name)
        return self.recorder.folder.is_done(cell_id, code_id)

    # Passages ---------------------------------------------------------------------------------------------------

    def _make(self, course: Course, code_id: str, pending: list[str]) -> None:
        label = f"{course.adapter.label} ({course.adapter.protocol})"
        try:
            with self.clock.measure_with_memory("adapt", scorer=label, on=f"stream {course.seed}"):
                passage = self.prepared.passage(course.adapter)
                streams = self._streams(course)
                outputs = self.loaded.model.num_classes
                for stream, tallies in tallied(passage.run(streams), num_outputs=outputs):
                    names = course.names[streams.index(stream)]
                    forgetting = self._id_error(passage) if stream is streams[-1] else None
                    for part, tally in sorted(tallies.items()):
                        if (name := names[part]) in pending:
                            self._record(course, code_id, name, metrics=_with(forgetting, tally))
                            pending.remove(name)
        except Exception as error:  # a stranger's adapter may raise anything
            logger.warning("%s, adapter %s: %s", self.model.label, label, describe(error))
            for name in pending:
                self._record(course, code_id, name, error=describe(error))

    def _streams(self, course: Course) -> list[Stream]:
        """Open the streams of a passage. Raises InputError where a set could not be opened."""
        size, seed = self.prepared.batch_size, course.seed
        found = []
        for names in course.names:
            parts = [self._shifted[name] for name in names]
            opened = [part for part in parts if part is not None]
            if len(opened) < len(parts):
                broken: Any = self.recorder.streams[names[parts.index(None)]]
                raise ValueError(broken.message)
            if course.adapter.protocol == CORRELATED:
                concentration = self._table.concentration
                found.append(
                    Stream.correlated(opened[0], batch_size=size, concentration=concentration, seed=seed)
                )
            else:
                found.append(Stream.mixed(opened, batch_size=size, seed=seed))
        return found

    def _id_error(self, passage: Passage) -> float:
        """Forward ID test, shuffled so that batch statistics are not those of one class, through what is left."""
        test = self.recorder.id_data.test
        return error_of(passage, Stream.mixed([test], batch_size=self.prepared.batch_size, seed=0))

    def _record(self, course: Course, code_id: str, name: str, **measured: Any) -> None:
        self.recorder.adaptation(self.model, course.adapter, course.seed, name, code_id, **measured)

    def _code_id(self, course: Course) -> str:
        """Digest all that a passage depends on; "" where a set cannot be opened."""
        if any(self._shifted[name] is None for name in course.sets):
            return ""
        adapter = course.adapter
        streams = [*self._streams(course), self.recorder.streams[ID]]
        return digests.adaptation_code_id(
            streams=[self.loaded.features_key(s, layers=False) for s in streams if isinstance(s, Stream)],
            fit=self.prepared.fit(adapter),
            adapter=adapter.offered.spec.name,
            params=adapter.params,
            protocol=adapter.protocol,
            after=self._table.after,
            source=adapter.offered.source,
            version=adapter.offered.version,
        )


def _with(id_error: float | None, tally: Tally) -> dict[str, dict[str, float | None]]:
    """Add the error on ID after the passage to a tally's metrics, where it is known."""
    forgetting = {} if id_error is None else {"id_error": {"value": id_error, "lo": None, "hi": None}}
    return tally.metrics() | forgetting
