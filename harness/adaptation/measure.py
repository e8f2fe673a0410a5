"""Runs the adapters of one model under their protocols, and records what they did on every shifted set."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import digests
from harness.adaptation.passage import Passage
from harness.data import CSID
from harness.extract import decoded_batches
from harness.progress import progress_bar
from harness.recorder import ID
from harness.scoring import describe
from harness.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness.adaptation.passage import Tally
    from harness.extract import Counts
    from harness.loaded import LoadedModel
    from harness.plan import PlannedAdapter, PlannedModel
    from harness.protocols import Adapter
    from harness.recorder import Recorder
    from harness.scoring import Clock
    from harness.selection import Selection

logger = logging.getLogger("ood_harness")

CONTINUAL, MIXED, CORRELATED = "continual", "mixed", "correlated"
TRAIN = "train"  # the need of an adapter that is prepared


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
    counts: Counts
    clock: Clock
    progress: bool = False
    _prepared: dict[str, Adapter] = field(default_factory=dict)  # by label: what has seen the clean images

    @property
    def cells(self) -> int:
        """How many numbers there are to be."""
        return len(self._shifted) * len(self._applicable) * len(self._table.seeds)

    def not_applicable(self) -> list[dict[str, object]]:
        """List the adapters whose needs exceed what the model and the data offer, with what is missing."""
        place = {"model": self.model.label, "seed": self.model.seed}
        return [
            {**place, "adapter": a.label, "protocol": a.protocol, "missing": self._missing(a)}
            for a in self.recorder.plan.adapters
            if self._missing(a)
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
        return [adapter for adapter in self.recorder.plan.adapters if not self._missing(adapter)]

    def _missing(self, adapter: PlannedAdapter) -> list[str]:
        return sorted({"logits", *adapter.needs} - self.loaded.offers - self.recorder.id_data.offers)

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
        """List the passages: one a set, or one over all sets where the protocol is continual or mixed."""
        for adapter in self._applicable:
            for seed in self._table.seeds:
                names = tuple(self._shifted)
                if adapter.protocol == CONTINUAL:
                    yield Course(adapter, seed, tuple((name,) for name in names))
                elif adapter.protocol == MIXED:
                    yield Course(adapter, seed, (names,))
                else:
                    yield from (Course(adapter, seed, ((name,),)) for name in names)

    def _is_done(self, course: Course, name: str, code_id: str) -> bool:
        plan = self.recorder.plan
        cell_id = plan.adaptation_id(self.model, course.adapter, course.seed, name)
        return self.recorder.folder.is_done(cell_id, code_id)

    # Passages ---------------------------------------------------------------------------------------------------

    def _make(self, course: Course, code_id: str, pending: list[str]) -> None:
        label = f"{course.adapter.label} ({course.adapter.protocol})"
        try:
            with self.clock.measure("adapt", scorer=label, on=f"stream {course.seed}"):
                passage = Passage(
                    self.loaded, self._adapter(course.adapter), counts=self.counts, after=self._table.after
                )
                streams = self._streams(course)
                for stream, tallies in passage.run(streams):
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

    def _adapter(self, planned: PlannedAdapter) -> Adapter:
        """Build an adapter for one passage; what one has seen of the clean images is kept for the next, as a copy."""
        if TRAIN not in planned.needs:
            return planned.offered.spec.build(**planned.params)  # type: ignore[no-any-return]
        if planned.label not in self._prepared:
            classifier: Any = copy.deepcopy(self.loaded.model.classifier)
            built = planned.offered.spec.build(**planned.params)
            self._prepared[planned.label] = built.prepare(classifier.eval(), self._clean())
        return copy.deepcopy(self._prepared[planned.label])

    def _clean(self) -> Iterator[Tensor]:
        """Decode ID training images in a random order, as many as the adapter takes."""
        train = self.recorder.id_data.train
        if train is None:
            return
        stream = Stream.mixed([train], batch_size=self._batch_size, seed=0)
        for batch in decoded_batches(self.loaded, stream):
            yield self.loaded.model.preprocessing.normalise(batch.to(self.loaded.device))

    @property
    def _batch_size(self) -> int:
        return int(self._table.batch_size or self.recorder.plan.suite.batch_size)

    def _streams(self, course: Course) -> list[Stream]:
        """Open the streams of a passage. Raises InputError where a set could not be opened."""
        size, seed = self._batch_size, course.seed
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
        return passage.forward_all(Stream.mixed([test], batch_size=self._batch_size, seed=0))

    def _record(self, course: Course, code_id: str, name: str, **measured: Any) -> None:
        self.recorder.adaptation(self.model, course.adapter, course.seed, name, code_id, **measured)

    def _code_id(self, course: Course) -> str:
        """Digest all that a passage depends on; "" where a set cannot be opened."""
        if any(self._shifted[name] is None for name in course.sets):
            return ""
        train, adapter = self.recorder.id_data.train, course.adapter
        streams = [*self._streams(course), self.recorder.streams[ID]]
        return digests.adaptation_code_id(
            streams=[self.loaded.features_key(s, layers=False) for s in streams if isinstance(s, Stream)],
            fit={"train": train.digest} if train is not None and TRAIN in adapter.needs else {},
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
