"""A model's own accuracy and calibration on the sets that have ID's labels: ID test and shifted ID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.data.sets import CSID
from harness.engine.evaluation import Cell, Evaluation, Measured, Sitting
from harness.evaluations import measures
from harness.reports.record import ID, MODEL
from harness.statistics.matching import renamed_accuracy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.engine.plan import Plan, PlannedModel


class Describing(Sitting[Cell]):
    """The accuracy of one model. An encoder has none."""

    def key(self, cell: Cell) -> str:
        """Return the key of the features from which the accuracy is computed."""
        return self.job.bench.loaded.features_key(self.job.sets.stream(cell.on), layers=False)

    def measured(self, cell: Cell) -> Measured:
        """Compute accuracy and calibration error on one set, and whether the outputs look renamed."""
        features = self.job.bench.features(cell.on, self.job.sets.stream(cell.on))
        among = self.job.sets.selection(cell.on).competing
        found = measures.Predictions.of(features, among=among)
        outputs = len(among) if among is not None else self.job.bench.loaded.model.num_classes
        content: dict[str, Any] = {
            "metrics": found.metrics(),
            "outputs": outputs,
        }  # over which the accuracy is
        if cell.on not in self._made_of_id:
            predicted, labels = found.predicted.cpu().numpy(), found.labels.cpu().numpy()
            content["renamed_accuracy"] = renamed_accuracy(predicted, labels)
        return Measured(content)

    @property
    def _made_of_id(self) -> set[str]:
        """The sets that have ID's own labels, so that no order of classes can be wrong."""
        return {entry.name for entry in self.job.plan.sets if entry.shifts_id}


class Accuracy(Evaluation[Cell]):
    """The model itself. Its cells describe the model, and a run does not count them."""

    name = MODEL
    sitting = Describing
    is_counted = False

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[Cell]:
        """Yield ID test and every shifted set."""
        for name in (ID, *(entry.name for entry in plan.sets if entry.group == CSID)):
            head = {"kind": MODEL, "group": ID if name == ID else CSID}
            cell_id = plan.cell_id(model, what="", on=name)
            yield Cell(model, None, name, cell_id, {}, head, frozenset({"logits", "labels"}))
