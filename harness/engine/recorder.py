"""Writes what a run finds as records: every one says what was paired, on which data, by which code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.data.opening import CSID
from harness.data.streams import Stream
from harness.reports.records import SATURATED, SEPARATE, SOURCE, TRAINED_ON, TRANSDUCTIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.data.mixtures import Mixture
    from harness.data.opening import IdData, SetEntry
    from harness.engine.plan import (
        Cell,
        Plan,
        PlannedAdapter,
        PlannedEstimator,
        PlannedModel,
        PlannedProbe,
        PlannedScorer,
    )
    from harness.engine.scoring import Failure
    from harness.reports.records import Record, RunFolder

ID = "id"  # the ID test stream, among the names of sets
_SATURATED_FROM = 0.999


@dataclass
class Recorder:
    """Appends records to a run's folder, tells those who follow the run, and counts."""

    plan: Plan
    id_data: IdData
    streams: Mapping[str, Stream | Failure]  # by set, ID included
    folder: RunFolder
    notify: Callable[[Record], None]
    measured: int = 0
    failed: int = 0

    def cell(self, cell: Cell, code_id: str, *, outliers: Sequence[str] = (), **measured: Any) -> None:
        """Record a cell's metrics, or its error; `outliers` are the datasets that its model was trained to reject.

        Where the cell could not even be tried (its model or set did not open, so there is no code id), a number that
        the folder holds already is kept, and the failure only counted.
        """
        if not self._is_to_be_written(cell.cell_id, code_id, measured):
            return
        specific = {
            "kind": "score",
            "scorer": cell.scorer.label,
            "params": dict(cell.scorer.params),
            "group": cell.entry.group,
            "cell_id": cell.cell_id,
            "plugin": cell.scorer.offered.plugin,
            "plugin_version": cell.scorer.offered.version,
        }
        self._append(
            cell.model,
            cell.entry.name,
            code_id,
            {**specific, **measured, "flags": _flags(measured, is_known=cell.entry.dataset in outliers)},
        )

    def model(self, model: PlannedModel, name: str, code_id: str, metrics: Mapping[str, object]) -> None:
        """Record a model's accuracy and calibration on a set that has ID's labels."""
        specific = {
            "kind": "model",
            "scorer": None,
            "params": dict(model.params),
            "group": ID if name == ID else CSID,
            "cell_id": self.plan.cell_id(model, "", name),
            "plugin": model.offered.plugin,
            "plugin_version": model.offered.version,
            "metrics": metrics,
        }
        self._append(model, name, code_id, specific)

    def probe(
        self, model: PlannedModel, probe: PlannedProbe, name: str, code_id: str, **measured: Any
    ) -> None:
        """Record a probe's number on a set, or its error; as for cells, a failure does not replace a number."""
        cell_id = self.plan.probe_id(model, probe, name)
        if not self._is_to_be_written(cell_id, code_id, measured):
            return
        groups = {entry.name: entry.group for entry in self.plan.sets}
        specific = {
            "kind": "probe",
            "scorer": None,
            "probe": probe.label,
            "params": dict(probe.params),
            "group": groups.get(name, ID),
            "cell_id": cell_id,
            "plugin": probe.offered.plugin,
            "plugin_version": probe.offered.version,
        }
        self._append(model, name, code_id, {**specific, **measured})

    def estimate(
        self,
        model: PlannedModel,
        estimator: PlannedEstimator,
        name: str,
        stream: Stream | None,
        code_id: str,
        *,
        group: str,
        kind_of_shift: str,
        **measured: Any,
    ) -> None:
        """Record what an estimator says of a set, beside the truth, or its error; without a stream, it did not open."""
        cell_id = self.plan.estimate_id(model, estimator, name)
        if not self._is_to_be_written(cell_id, code_id, measured):
            return
        specific = {
            "kind": "estimate",
            "scorer": None,
            "estimator": estimator.label,
            "params": dict(estimator.params),
            "needs": sorted(estimator.needs),
            "ood": None if name == ID else name,
            "group": group,
            "shift": kind_of_shift,
            "n_ood": len(stream) if stream is not None else None,
            "data": {
                "id": self.id_data.test.digest,
                "ood": stream.parts[0].digest if stream is not None else None,
            },
            "cell_id": cell_id,
            "plugin": estimator.offered.plugin,
            "plugin_version": estimator.offered.version,
        }
        self._append(model, ID, code_id, {**specific, **measured})

    def adaptation(
        self,
        model: PlannedModel,
        adapter: PlannedAdapter,
        stream_seed: int,
        name: str,
        code_id: str,
        **measured: Any,
    ) -> None:
        """Record what an adapter did on a shifted set, or its error; a failure does not replace a number."""
        cell_id = self.plan.adaptation_id(model, adapter, stream_seed, name)
        if not self._is_to_be_written(cell_id, code_id, measured):
            return
        specific = {
            "kind": "adaptation",
            "adapter": adapter.label,
            "protocol": adapter.protocol,
            "scorer": None,
            "params": dict(adapter.params),
            "group": CSID,
            "cell_id": cell_id,
            "plugin": adapter.offered.plugin,
            "plugin_version": adapter.offered.version,
        }
        self._append(model, name, code_id, {**specific, **measured}, stream_seed=stream_seed)

    def on_mixture(
        self,
        model: PlannedModel,
        adapter: PlannedAdapter,
        mixture: Mixture,
        code_id: str,
        *,
        scorer: PlannedScorer | None = None,
        label: str | None = None,
        stream_seed: int | None = None,
        **measured: Any,
    ) -> None:
        """Record what a scorer, or else the adapter itself, came to on a mixture of ID and OOD, or its error.

        `label` is what the scorer is called; `stream_seed` is of the one stream that the adapter's numbers are of.
        """
        what = label if scorer is not None else f"stream {stream_seed}"
        cell_id = self.plan.mixture_id(model, adapter, mixture, str(what))
        if not self._is_to_be_written(cell_id, code_id, measured):
            return
        offered = adapter.offered if scorer is None else scorer.offered
        settings = self.plan.suite.adaptation
        specific = {
            "kind": "adaptation" if scorer is None else "score",
            "adapter": adapter.label,
            "protocol": adapter.protocol,
            "scorer": label,
            "params": dict(adapter.params if scorer is None else scorer.params),
            "group": mixture.ood.group,
            "ood": mixture.name,
            "mixture": {
                "percent": mixture.percent,
                "shift": mixture.shift.name if mixture.shift else None,
                "size": settings.size,
                "batch_size": settings.batch_size or self.plan.suite.batch_size,
            },
            "cell_id": cell_id,
            "plugin": offered.plugin,
            "plugin_version": offered.version,
            "flags": _flags(measured, is_known=False),
        }
        seeds = stream_seed if scorer is None else list(settings.open_seeds)
        self._append(model, mixture.ood.name, code_id, {**specific, **measured}, stream_seed=seeds)

    def transductive(
        self, model: PlannedModel, scorer: PlannedScorer, entry: SetEntry, code_id: str, **measured: Any
    ) -> None:
        """Record what a scorer came to that looks at a mixture of ID test and a set at once, or its error."""
        cell_id = self.plan.cell_id(model, scorer.label, entry.name)
        if not self._is_to_be_written(cell_id, code_id, measured):
            return
        specific = {
            "kind": "score",
            "scorer": scorer.label,
            "params": dict(scorer.params),
            "group": entry.group,
            "cell_id": cell_id,
            "plugin": scorer.offered.plugin,
            "plugin_version": scorer.offered.version,
            "flags": [*_flags(measured, is_known=False), TRANSDUCTIVE],
        }
        seeds = list(self.plan.suite.adaptation.open_seeds)
        self._append(model, entry.name, code_id, {**specific, **measured}, stream_seed=seeds)

    def _is_to_be_written(self, cell_id: str, code_id: str, measured: Mapping[str, Any]) -> bool:
        """Count what was measured; say no to a failure without a code id, which would replace a number."""
        self.measured += 1
        self.failed += "error" in measured
        known = self.folder.records.get(cell_id)
        return bool(code_id) or known is None or known["error"] is not None

    def _append(
        self,
        model: PlannedModel,
        name: str,
        code_id: str,
        specific: Record,
        *,
        stream_seed: int | list[int] | None = None,
    ) -> None:
        suite = self.plan.suite
        split_seed = suite.id.validation.seed if suite.id.validation else None
        stream = self.streams[name]
        part: Any = stream.parts[0] if isinstance(stream, Stream) else None
        record = {
            "suite": suite.name,
            "suite_digest": suite.digest,
            "model": model.label,
            "adapter": SOURCE,
            "protocol": SEPARATE,
            "id": suite.id.dataset,
            "ood": None if name == ID else name,
            "seeds": {
                "model": model.seed,
                "split": split_seed,
                "fit": None,
                "stream": stream_seed,
                "bootstrap": None,
            },
            "data": {"id": self.id_data.test.digest, "ood": part.digest if part and name != ID else None},
            "n_id": len(self.id_data.test),
            "n_ood": len(part) if part and name != ID else None,
            "metrics": {},
            "scores": None,
            "flags": [],
            "error": None,
            "code_id": code_id,
            **specific,
        }
        self.folder.append(record)
        self.notify(record)


def _flags(measured: Mapping[str, Any], *, is_known: bool) -> list[str]:
    auroc = measured.get("metrics", {}).get("auroc", {}).get("value", 0.5)
    is_saturated = max(auroc, 1 - auroc) >= _SATURATED_FROM
    return [flag for flag, holds in ((SATURATED, is_saturated), (TRAINED_ON, is_known)) if holds]
