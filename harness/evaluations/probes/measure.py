"""Measures the probes of one model on every set, from the features that the scorers read."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base import digests
from harness.base.errors import InputError
from harness.contract.features import Measurement
from harness.contract.specs import FEATURE_FIELDS
from harness.data.sets import CSID
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, describe
from harness.engine.plan import Planned, taken
from harness.engine.suite import PluginEntries, Section, Suite
from harness.evaluations.table_report import TableReport
from harness.models.loaded import libraries
from harness.reports.record import ID, PROBE, SEPARATE, SOURCE
from harness.statistics.intervals import normal_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from harness.contract.protocols import Probe
    from harness.contract.registry import Registry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, PlannedModel
    from harness.reports.text import Text

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True, eq=False)
class ProbeCell(Cell):
    """A model, a probe and a set."""

    worker: Planned


class ProbeSection(Section):
    """The key `probes`."""

    probes: PluginEntries = []


def _text(folders: Sequence[Path]) -> Text:
    from harness.evaluations.probes.table import probe_table
    from harness.evaluations.probes.text import probe_text

    return probe_text(probe_table(folders))


class Probes(Evaluation[ProbeCell]):
    """One number for the features of a whole set."""

    name = PROBE
    section = ProbeSection
    report = TableReport(
        PROBE,
        "probes",
        "Print what the probes found, and its rank correlation with accuracy across models.",
        _text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the probes."""
        entries = suite.section(ProbeSection).probes
        return {"probes": [Planned(*taken(PROBE, entry, registry)) for entry in entries]}

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[ProbeCell]:
        """Yield every probe on every set; a probe that needs labels on the sets that have ID's labels."""
        groups = {ID: ID} | {entry.name: entry.group for entry in plan.sets}
        for name, group in groups.items():
            for probe in plan.named("probes"):
                if group in (ID, CSID) or "labels" not in probe.needs:
                    cell_id = plan.cell_id(model, what=f"{PROBE} {probe.label}", on=name)
                    head = {"kind": PROBE, "probe": probe.label, "group": group}
                    yield ProbeCell(model, probe, name, cell_id, head)

    def begin(self, job: Job) -> Probing:
        """Begin with one model."""
        return Probing(job)


class Probing(Sitting[ProbeCell]):
    """The probes of one model."""

    def missing(self, cell: ProbeCell) -> NotApplicable | None:
        """Return what the probe needs and neither the model nor the data offer."""
        missing = self.job.bench.missing(cell.worker.needs)
        place = {"adapter": SOURCE, "protocol": SEPARATE, "probe": cell.worker.label}
        return NotApplicable(place, missing) if missing else None

    def key(self, cell: ProbeCell) -> str:
        """Digest all that the number depends on."""
        probe, stream = cell.worker, self.job.sets.stream(cell.on)
        return digests.probe_code_id(
            features=self.job.bench.loaded.features_key(stream, layers="layers" in probe.needs),
            fit=self.job.sets.id_data.digests_of(probe.needs),
            probe=probe.offered.spec.name,
            params=probe.params,
            source=probe.offered.source,
            version=probe.offered.version,
            libraries=libraries(),
        )

    def measure(self, cells: Sequence[ProbeCell]) -> Iterator[tuple[ProbeCell, Measured | Failure]]:
        """Measure cell by cell; a set's features are extracted once."""
        for cell in cells:
            try:
                found: Measured | Failure = self._measured(cell)
            except Exception as error:  # a stranger's probe or dataset may raise anything
                found = Failure(describe(error))
            if isinstance(found, Failure):
                place = cell.model.label, cell.worker.label, cell.on
                logger.warning("%s, probe %s on %s: %s", *place, found.message)
            yield cell, found

    def _measured(self, cell: ProbeCell) -> Measured | Failure:
        import torch

        probe, bench = cell.worker, self.job.bench
        features = bench.features(cell.on, self.job.sets.stream(cell.on))
        fitted: Probe | Failure = bench.fitted(probe)
        if isinstance(fitted, Failure):
            return fitted
        with torch.no_grad(), bench.clock.measure("probe", scorer=probe.label, on=cell.on):
            found = _checked(fitted.measure(features.only(probe.needs & FEATURE_FIELDS)))
        low, high = normal_interval(found.value, found.standard_error)
        return Measured({"metrics": {probe.offered.spec.name: {"value": found.value, "lo": low, "hi": high}}})


def _checked(found: object) -> Measurement:
    if not isinstance(found, Measurement):
        raise InputError(f"gave a {type(found).__name__}. Return harness.Measurement(value)")
    error = found.standard_error
    if not math.isfinite(found.value) or (error is not None and not (math.isfinite(error) and error >= 0)):
        raise InputError(f"gave {found.value} ± {error}. A measurement must be finite")
    return found
