"""A model's own accuracy and calibration on the sets that have ID's labels: ID test and shifted ID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data.sets import CSID
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, describe
from harness.evaluations import measures
from harness.reports.record import ID, MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, PlannedModel


class Accuracy(Evaluation[Cell]):
    """The model itself. Its cells describe the model, and are not among those that a run counts."""

    name = MODEL
    is_counted = False

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[Cell]:
        """Yield ID test and every shifted set."""
        for name in (ID, *(entry.name for entry in plan.sets if entry.group == CSID)):
            head = {"kind": MODEL, "group": ID if name == ID else CSID}
            yield Cell(model, None, name, plan.cell_id(model, what="", on=name), head)

    def begin(self, job: Job) -> Describing:
        """Begin with one model."""
        return Describing(job)


class Describing(Sitting[Cell]):
    """The accuracy of one model."""

    def missing(self, cell: Cell) -> NotApplicable | None:
        """Return that an encoder has no accuracy."""
        missing = self.job.bench.missing(frozenset({"logits"}))
        return NotApplicable({}, missing) if missing else None

    def key(self, cell: Cell) -> str:
        """Name the features that the accuracy is computed of."""
        return self.job.bench.loaded.features_key(self.job.sets.stream(cell.on), layers=False)

    def measure(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Measured | Failure]]:
        """Compute accuracy and calibration error, set by set."""
        for cell in cells:
            try:
                features = self.job.bench.features(cell.on, self.job.sets.stream(cell.on))
                yield cell, Measured({"metrics": measures.model_metrics(features)})
            except Exception as error:  # a stranger's dataset or model may raise anything
                yield cell, Failure(describe(error))
