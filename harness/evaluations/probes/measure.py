"""Measures the probes of one model on every set, from the features that the scorers read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.base.strangers import undisturbed
from harness.contract.features import Measurement
from harness.contract.scores import as_number
from harness.data.sets import CSID
from harness.engine.evaluation import Cell, Evaluation, Measured, Sitting
from harness.engine.guard import Failure
from harness.engine.plan import Planned, taken
from harness.engine.suite import PluginEntries, Section, Suite
from harness.evaluations.probes.table import probe_table, probe_text
from harness.evaluations.table_report import TableReport
from harness.reports.record import ID, PROBE, SEPARATE, SOURCE
from harness.statistics.intervals import normal_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.contract.protocols import Probe
    from harness.contract.registry import Registry
    from harness.data.streams import Stream
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.workbench import Workbench


@dataclass(frozen=True, eq=False)
class ProbeCell(Cell):
    """A model, a probe and a set."""

    worker: Planned


class ProbeSection(Section):
    """The key `probes`."""

    probes: PluginEntries = []


class Probing(Sitting[ProbeCell]):
    """The probes of one model."""

    title = "probe"

    def key(self, cell: ProbeCell) -> str:
        """Digest everything that the number depends on."""
        stream, layers = self.job.sets.stream(cell.on), "layers" in cell.worker.needs
        return self.job.key(cell.worker, self.job.bench.loaded.features_key(stream, layers=layers))

    def measured(self, cell: ProbeCell) -> Measured | Failure:
        """Measure one set, whose features are extracted once for all probes and scorers."""
        bench = self.job.bench
        fitted: Probe | Failure = bench.fitted(cell.worker)
        if isinstance(fitted, Failure):
            return fitted
        return observe(fitted, cell.worker, bench, cell.on, self.job.sets.stream(cell.on))


def observe(fitted: Probe, planned: Planned, bench: Workbench, on: str, stream: Stream) -> Measured:
    """Measure a fitted probe on a stream, and check its number."""
    import torch

    features = bench.observed(on, stream, planned.needs)
    with (
        torch.no_grad(),
        undisturbed(bench.loaded.device),
        bench.clock.measure("probe", scorer=planned.label, on=on),
    ):
        found = _checked(fitted.measure(features))
    low, high = normal_interval(found.value, found.standard_error)
    return Measured({"metrics": {planned.offered.spec.name: {"value": found.value, "lo": low, "hi": high}}})


def _checked(found: object) -> Measurement:
    if not isinstance(found, Measurement):
        raise InputError(f"gave a {type(found).__name__}. Return harness.Measurement(value)")
    value, error = as_number(found.value, "value"), found.standard_error
    error = None if error is None else as_number(error, "standard_error")
    if not math.isfinite(value) or (error is not None and not (math.isfinite(error) and error >= 0)):
        raise InputError(f"gave {value} ± {error}. A measurement must be finite")
    return Measurement(value, error)


class Probes(Evaluation[ProbeCell]):
    """One number for the features of a whole set."""

    name = PROBE
    sitting = Probing
    section = ProbeSection
    report = TableReport(
        PROBE,
        "probes",
        "Print the results of the probes, and their rank correlation with accuracy across models.",
        probe_table,
        probe_text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the probes."""
        entries, isolation = suite.section(ProbeSection).probes, suite.limits.isolation
        return {"probes": [Planned(*taken(PROBE, entry, registry, isolation)) for entry in entries]}

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[ProbeCell]:
        """Yield every probe on every set; a probe that needs labels only on the sets that have ID's labels."""
        groups = {ID: ID} | {entry.name: entry.group for entry in plan.sets}
        for name, group in groups.items():
            for probe in plan.named("probes"):
                if group in (ID, CSID) or "labels" not in probe.needs:
                    cell_id = plan.cell_id(model, what=f"{PROBE} {probe.label}", on=name)
                    place = {"adapter": SOURCE, "protocol": SEPARATE, "probe": probe.label}
                    head = {"kind": PROBE, "group": group}
                    yield ProbeCell(model, probe, name, cell_id, place, head, probe.needs)
