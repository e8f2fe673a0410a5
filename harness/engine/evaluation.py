"""One kind of evaluation, as the engine sees it: the life of its cells, from the plan to the record.

    cells    what there is to measure, known before anything is opened
    missing  why a cell does not apply to this model and data
    key      all that a cell's numbers depend on: an unchanged key is not measured again
    measure  the numbers, or a failure, cell by cell
    finish   what is made of all cells of one model together

harness.engine.life runs this life for any kind, and names none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from harness.engine.suite import Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType

    from harness.contract.registry import Registry
    from harness.engine.guard import Failure
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.engine.sets import OpenSets
    from harness.engine.suite import Suite
    from harness.engine.workbench import Workbench
    from harness.reports.records import RunFolder


@dataclass(frozen=True, eq=False)
class Cell:
    """One thing to measure: all that is known of it before anything is opened. A kind may extend it."""

    model: PlannedModel
    worker: Planned | None  # the scorer, probe, adapter or estimator; None: the model itself
    on: str  # the set whose content the record names
    cell_id: str
    head: Mapping[str, Any]  # what its record says beside suite, model and data
    stream_seed: int | list[int] | None = None  # of the streams that it is measured on


@dataclass(frozen=True)
class Measured:
    """What was found for a cell: what its record says beside the cell's head."""

    says: Mapping[str, Any]  # "metrics" and whatever else the kind records


@dataclass(frozen=True)
class NotApplicable:
    """Why a cell does not apply: what the model or the data lack. `place` is how run.json names it."""

    place: Mapping[str, object]
    missing: Sequence[str]


@dataclass(frozen=True, eq=False)
class Job:
    """One model of a run, opened, with everything that its evaluations work with."""

    plan: Plan
    model: PlannedModel
    bench: Workbench
    sets: OpenSets
    folder: RunFolder
    peer: Callable[[], Workbench | None] = field(default=lambda: None)  # another training of the same model


C = TypeVar("C", bound=Cell)  # a kind's own cells


class Sitting(Generic[C]):
    """One kind of evaluation of one model."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def missing(self, cell: C) -> NotApplicable | None:
        """Return why the cell does not apply; None if it does."""
        return None

    def key(self, cell: C) -> str:
        """Digest all that the cell's numbers depend on. It may raise if the cell's set cannot be opened."""
        raise NotImplementedError

    def measure(self, cells: Sequence[C]) -> Iterator[tuple[C, Measured | Failure]]:
        """Yield what was found for each cell, in any order. A cell that gets no answer fails."""
        raise NotImplementedError

    def finish(self, cells: Sequence[C]) -> None:
        """Do what takes all applicable cells together, once they are recorded."""


class Report(Protocol):
    """What people read of one kind's records in a run's folder. A folder without such records has none."""

    def write(self, folder: Path) -> None:
        """Write the report's files beside the records."""
        ...

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the report for a terminal of the given width."""
        ...

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the report's numbers."""
        ...


class Evaluation(Generic[C]):
    """A kind of evaluation: its part of a suite, its cells, how they are measured, and its report."""

    name: str  # of the kind
    section: type[Section] = Section  # the keys of a suite that are its own
    is_counted: bool = (
        True  # whether its cells are among those that a run counts; if not, they describe the model
    )
    report: Report | None = None  # None: its records stand in another kind's report

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve what the suite names under the kind's own keys, by key."""
        return {}

    def check(self, plan: Plan) -> None:
        """Raise InputError for a plan that makes no sense to this kind, before anything runs."""

    def names_of_sets(self, plan: Plan) -> Iterable[str]:
        """Return the names under which its records stand beside those of the suite's sets."""
        return ()

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[C]:
        """Yield the cells of one model, before anything is opened."""
        raise NotImplementedError

    def begin(self, job: Job) -> Sitting[C]:
        """Begin with one model."""
        raise NotImplementedError
