"""One kind of evaluation, as the engine sees it: the life of its cells, from the plan to the record.

    cells    everything that will be measured, known before any data is opened
    missing  the reason why a cell does not apply to this model and data
    key      a digest of everything that a cell's numbers depend on: an unchanged key is not measured again
    measure  the numbers, or a failure, cell by cell
    finish   work on all cells of one model together

harness.engine.life runs this life for any kind, and names none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from harness.base import digests
from harness.base.errors import InputError
from harness.base.progress import progress_bar
from harness.contract.specs import PEER
from harness.engine.guard import Failure, attempt
from harness.engine.suite import Section
from harness.models.loaded import libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType

    from harness.contract.registry import Registry
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.engine.sets import OpenSets
    from harness.engine.suite import Suite
    from harness.engine.workbench import Workbench
    from harness.reports.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class Cell:
    """One thing to measure, as it is known before any data is opened. A kind may extend it."""

    model: PlannedModel
    worker: Planned | None  # the scorer, probe, adapter or estimator; None: the model itself
    on: str  # the set whose content the record names
    cell_id: str
    place: Mapping[str, object]  # the keys by which tables find its record, and run.json lists it
    head: Mapping[str, Any]  # the other keys that its record has from the start: "kind", and more
    needs: frozenset[str] = frozenset()  # of the model and the data
    stream_seed: int | list[int] | None = None  # of the streams that it is measured on


@dataclass(frozen=True)
class Measured:
    """The result of a cell: the keys that its record has beside those of the cell."""

    content: Mapping[str, Any]  # "metrics", and whatever else the kind records


@dataclass(frozen=True)
class NotApplicable:
    """The needs of a cell that are missing, and the place under which run.json lists them, once; {}: it does not."""

    place: Mapping[str, object]
    missing: Sequence[str]


def _no_epochs(epoch: int) -> Workbench:
    raise InputError(f"the weights of epoch {epoch} cannot be loaded")


@dataclass(frozen=True, eq=False)
class Job:
    """One model of a run, opened, with everything that its evaluations work with."""

    plan: Plan
    model: PlannedModel
    bench: Workbench
    sets: OpenSets
    folder: RunFolder
    peer: Callable[[], Workbench | None] = field(default=lambda: None)  # another training of the same model
    after: Callable[[int], Workbench] = field(
        default=_no_epochs
    )  # the model after an epoch, loaded anew at each call

    def missing(self, needs: frozenset[str]) -> list[str]:
        """List the needs that neither the model, nor the data, nor another training of the model offers."""
        has_peer = PEER in needs and self.peer() is not None
        return self.bench.missing(needs - {PEER} if has_peer else needs)

    def key(self, worker: Planned, *inputs: object) -> str:
        """Digest the inputs, the ID data that the worker is fitted on, its parameters, its code and the libraries."""
        offered, fit = worker.offered, self.sets.id_data.digests_of(worker.needs)
        code = offered.spec.name, worker.params, offered.source, offered.version, libraries()
        return digests.digest(digests.SCORING_VERSION, inputs, fit, *code)

    def progress(self, what: str, total: int, unit: str) -> Any:
        """Open a tqdm bar for some work on the model, silent if the run shows no progress or there is no work."""
        enabled = self.bench.progress and total > 0
        return progress_bar(total=total, description=f"{what} {self.model.title}", unit=unit, enabled=enabled)


C = TypeVar("C", bound=Cell)  # a kind's own cells


class Sitting(Generic[C]):
    """One kind of evaluation of one model. A kind measures cell by cell, or many cells together in `measure`."""

    title = "measure"  # of the progress bar

    def __init__(self, job: Job) -> None:
        self.job = job

    def missing(self, cell: C) -> NotApplicable | None:
        """Return the needs of the cell that are missing; None if it applies."""
        lacking = self.job.missing(cell.needs)
        return NotApplicable(cell.place, lacking) if lacking else None

    def key(self, cell: C) -> str:
        """Digest everything that the cell's numbers depend on. It may raise if the cell's set cannot be opened."""
        raise NotImplementedError

    def measured(self, cell: C) -> Measured | Failure:
        """Measure one cell. It may raise anything."""
        raise NotImplementedError

    def measure(self, cells: Sequence[C]) -> Iterator[tuple[C, Measured | Failure]]:
        """Yield the result of each cell, in any order. A cell without a result fails."""
        with self.job.progress(self.title, len(cells), "set") as bar:
            for cell in cells:
                yield cell, attempt(self.measured, cell)
                bar.update()

    def finish(self, cells: Sequence[C]) -> None:
        """Work on all applicable cells together, once they are recorded."""


class Report(Protocol):
    """One kind's records in a run's folder, as people read them. A folder without such records has no report."""

    def write(self, folder: Path) -> None:
        """Write the report's files beside the records."""

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the report for a terminal of the given width."""

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the report's numbers."""


class Evaluation(Generic[C]):
    """A kind of evaluation: its part of a suite, its cells, how they are measured, and its report."""

    name: str  # of the kind
    sitting: type[Sitting[C]]
    section: type[Section] = Section  # its own keys of a suite
    is_counted: bool = True  # whether a run counts its cells; if not, they describe the model
    cost_is_declared: bool = (
        False  # whether its methods' specs declare their passes, so that --dry-run knows its time
    )
    report: Report | None = None  # None: its records stand in another kind's report

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the names that the suite gives under the kind's own keys, by key."""
        return {}

    def check(self, plan: Plan) -> None:
        """Raise InputError for a plan that makes no sense to this kind, before anything runs."""

    def open(self, plan: Plan, sets: OpenSets) -> None:
        """Open the data that it reads beside the suite's sets; raise HarnessError if that fails. No model is loaded."""

    def names_of_sets(self, plan: Plan) -> Iterable[str]:
        """Return the names of sets that its records have beside the suite's sets."""
        return ()

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[C]:
        """Yield the cells of one model, before any data is opened."""
        raise NotImplementedError
