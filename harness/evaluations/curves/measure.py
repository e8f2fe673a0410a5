"""Measures probes along the training of a model: after every kept epoch, on ID test or other sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from harness.base.errors import InputError, unknown_name
from harness.base.toml import Table
from harness.data.sets import CSID
from harness.engine.evaluation import Cell, Evaluation, Measured, Sitting
from harness.engine.guard import Failure
from harness.engine.plan import Planned, taken
from harness.engine.suite import PluginEntries, Section, Suite
from harness.evaluations.curves.table import curve_table, curve_text
from harness.evaluations.probes.measure import observe
from harness.evaluations.table_report import TableReport
from harness.reports.record import CURVE, ID, PROBE, SEPARATE, SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.contract.registry import Registry
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.workbench import Workbench

CURVES = "curves"


class CurvesTable(Table):
    """The suite's [curves]: what is measured along training, how often, and on which sets."""

    probes: Annotated[PluginEntries, Field(min_length=1)]
    every: Annotated[int, Field(ge=1)] = 1  # among the kept epochs: its multiples, and the last
    on: Annotated[list[str], Field(min_length=1)] = [ID]


class CurvesSection(Section):
    """The key `curves`."""

    curves: CurvesTable | None = None

    @classmethod
    def tables(cls) -> dict[str, type[Table]]:
        """Return the section's tables by key."""
        return {CURVES: CurvesTable}


@dataclass(frozen=True, eq=False)
class CurveCell(Cell):
    """A model after an epoch, a probe and a set."""

    worker: Planned
    epoch: int = 0


class Watching(Sitting[CurveCell]):
    """The probes along the training of one model. One epoch's network is in memory at a time."""

    title = "along training"
    _opened: tuple[int, Workbench] | None = None

    def key(self, cell: CurveCell) -> str:
        """Digest everything that the number depends on. This loads the epoch: its weights may have been replaced."""
        stream, layers = self.job.sets.stream(cell.on), "layers" in cell.worker.needs
        return self.job.key(cell.worker, self._after(cell.epoch).loaded.features_key(stream, layers=layers))

    def measured(self, cell: CurveCell) -> Measured | Failure:
        """Measure one set after one epoch. A probe that is fitted on nothing is built once for all epochs."""
        bench = self._after(cell.epoch)
        fitted = (bench if "train" in cell.worker.needs else self.job.bench).fitted(cell.worker)
        if isinstance(fitted, Failure):
            return fitted
        return observe(fitted, cell.worker, bench, cell.on, self.job.sets.stream(cell.on))

    def _after(self, epoch: int) -> Workbench:
        if self._opened is None or self._opened[0] != epoch:
            self._opened = None  # frees the last epoch's network before the next is loaded
            self._opened = epoch, self.job.after(epoch)
        return self._opened[1]


class Curves(Evaluation[CurveCell]):
    """One number per kept epoch for the features of a whole set."""

    name = CURVE
    sitting = Watching
    section = CurvesSection
    report = TableReport(
        CURVE,
        CURVES,
        "Print the probes along the training of each model, epoch by epoch.",
        curve_table,
        curve_text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the probes."""
        asked = suite.section(CurvesSection).curves
        entries, isolation = asked.probes if asked else [], suite.limits.isolation
        return {CURVES: [Planned(*taken(PROBE, entry, registry, isolation)) for entry in entries]}

    def check(self, plan: Plan) -> None:
        """Raise InputError for curves on an unknown set, and of models that keep no epochs."""
        asked = plan.suite.section(CurvesSection).curves
        if asked is None:
            return
        for name in asked.on:
            if name not in (valid := [ID, *(entry.name for entry in plan.sets)]):
                raise unknown_name("set of [curves]", name, valid, valid_label="Valid")
        if not any(plan.kept_epochs(model) for model in plan.models):
            raise InputError(
                "[curves] follows models along their training, but no model keeps the weights of its epochs. Give a "
                "recipe snapshots = 1, or another number of epochs"
            )

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[CurveCell]:
        """Yield every probe on every set after every epoch; a probe that needs labels only where ID's labels are."""
        asked = plan.suite.section(CurvesSection).curves
        if asked is None:
            return
        groups = {ID: ID} | {entry.name: entry.group for entry in plan.sets}
        for epoch in _chosen(plan.kept_epochs(model), asked.every):
            for name in asked.on:
                for probe in plan.named(CURVES):
                    if groups[name] in (ID, CSID) or "labels" not in probe.needs:
                        cell_id = plan.cell_id(model, what=f"{CURVE} {probe.label} {epoch}", on=name)
                        place = {
                            "adapter": SOURCE,
                            "protocol": SEPARATE,
                            "probe": probe.label,
                            "epoch": epoch,
                        }
                        head = {"kind": CURVE, "group": groups[name]}
                        yield CurveCell(model, probe, name, cell_id, place, head, probe.needs, epoch=epoch)


def _chosen(kept: Sequence[int], every: int) -> list[int]:
    return [epoch for epoch in kept if epoch % every == 0 or epoch == kept[-1]]
