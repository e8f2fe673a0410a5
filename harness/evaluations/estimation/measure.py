"""Runs the estimators of one model on ID test, on shifted ID, and on the shifted validation data that curves need."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import digests
from harness.base.errors import InputError
from harness.base.progress import progress_bar
from harness.base.signatures import checked_parameters
from harness.contract.features import Estimate
from harness.contract.specs import FEATURE_FIELDS, PEER
from harness.data.opening import open_shifted
from harness.data.sets import CALIBRATION, CLEAN, CSID, calibration_entries
from harness.data.streams import Stream
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, describe
from harness.engine.plan import Planned, taken
from harness.evaluations import measures
from harness.evaluations.estimation.section import EstimationSection, settings
from harness.evaluations.table_report import TableReport
from harness.models.loaded import libraries
from harness.models.unlabelled import unlabelled
from harness.reports.record import ESTIMATE, ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from harness.contract.protocols import Estimator
    from harness.contract.registry import Registry
    from harness.contract.selection import Selection
    from harness.data.sets import SetEntry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.suite import Suite
    from harness.reports.text import Text

logger = logging.getLogger("ood_harness")

VALIDATION = "validation"
FITTED_WITH = frozenset({"labels"})  # that estimators are given beside what they declare, of validation data


@dataclass(frozen=True)
class Target:
    """A labelled set on which estimators run, as if it had no labels."""

    name: str
    group: str  # id, csid or calibration
    kind: str  # of its shift
    shift: SetEntry | None = None  # of validation data


@dataclass(frozen=True, eq=False)
class EstimateCell(Cell):
    """A model, an estimator and a target."""

    worker: Planned
    target: Target = field(kw_only=True)


def _text(folders: Sequence[Path]) -> Text:
    from harness.evaluations.estimation.table import estimate_table
    from harness.evaluations.estimation.text import estimate_text

    return estimate_text(estimate_table(folders))


class Estimation(Evaluation[EstimateCell]):
    """Estimates of a model's accuracy on unlabelled sets."""

    name = ESTIMATE
    section = EstimationSection
    report = TableReport(
        ESTIMATE,
        "estimates",
        "Print how far estimates of accuracy were from the truth, estimator by estimator.",
        _text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the estimators."""
        entries = suite.section(EstimationSection).estimators
        return {"estimators": [Planned(*taken("estimator", entry, registry)) for entry in entries]}

    def check(self, plan: Plan) -> None:
        """Raise HarnessError for shifts of validation data that are not there."""
        for entry in calibration(plan) if plan.named("estimators") else ():
            offered = plan.registry.get("dataset", entry.dataset)
            checked_parameters(offered.spec.build, entry.params, owner=f"dataset {entry.dataset}", given=1)

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[EstimateCell]:
        """Yield every estimator on every target."""
        for estimator in plan.named("estimators"):
            for target in targets(plan):
                head = {
                    "kind": ESTIMATE,
                    "estimator": estimator.label,
                    "needs": sorted(estimator.needs),
                    "ood": None if target.name == ID else target.name,
                    "group": target.group,
                    "shift": target.kind,
                }
                cell_id = plan.cell_id(model, what=f"estimator {estimator.label}", on=target.name)
                yield EstimateCell(model, estimator, ID, cell_id, head, target=target)

    def begin(self, job: Job) -> Estimating:
        """Begin with one model."""
        return Estimating(job)


def calibration(plan: Plan) -> list[SetEntry]:
    """List the shifts of ID validation data that curves are fitted on."""
    table = settings(plan.suite)
    return calibration_entries(table.corrupt, table.severity, plan.registry)


def targets(plan: Plan) -> list[Target]:
    """List ID test, shifted ID, and validation data as they are and under each shift that is set aside for curves."""
    found = [Target(ID, ID, CLEAN)]
    found += [Target(entry.name, CSID, entry.kind) for entry in plan.sets if entry.group == CSID]
    if plan.suite.id.validation is not None:
        found.append(Target(VALIDATION, CALIBRATION, CLEAN))
        found += [
            Target(f"{VALIDATION}+{entry.name}", CALIBRATION, entry.kind, entry)
            for entry in calibration(plan)
        ]
    return found


class Estimating(Sitting[EstimateCell]):
    """The estimators of one model."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._streams: dict[str, Stream] = {}  # by target
        self._accuracies: dict[str, dict[str, float | None]] = {}  # by target

    def missing(self, cell: EstimateCell) -> NotApplicable | None:
        """Return what the estimator needs and neither the model nor the data offer."""
        missing = missing_needs(self.job, cell.worker)
        return NotApplicable({"estimator": cell.worker.label}, missing) if missing else None

    def key(self, cell: EstimateCell) -> str:
        """Digest all that the estimate depends on."""
        estimator, offered = cell.worker, cell.worker.offered
        peer = self.job.peer() if PEER in estimator.needs else None
        return digests.estimate_code_id(
            features=self.job.bench.loaded.features_key(self._stream(cell.target), layers=False),
            fit=self.job.sets.id_data.digests_of(estimator.needs),
            peer=peer.loaded.digest if peer is not None else None,
            estimator=offered.spec.name,
            params=estimator.params,
            seed=settings(self.job.plan.suite).seed,
            source=offered.source,
            version=offered.version,
            libraries=libraries(),
        )

    def measure(self, cells: Sequence[EstimateCell]) -> Iterator[tuple[EstimateCell, Measured | Failure]]:
        """Ask every estimator about every target that is missing."""
        model, bench = self.job.model, self.job.bench
        with progress_bar(
            total=len(cells),
            description=f"estimate {model.label} (seed {model.seed})",
            unit="set",
            enabled=bench.progress and bool(cells),
        ) as bar:
            for cell in cells:
                yield cell, self._measured(cell)
                bar.update()

    def _measured(self, cell: EstimateCell) -> Measured | Failure:
        data: dict[str, Any] = {"n_ood": None, "data": {"id": self.job.sets.id_data.test.digest, "ood": None}}
        try:
            stream = self._stream(cell.target)
            data["n_ood"], data["data"]["ood"] = len(stream), stream.parts[0].digest
            found = self._estimated(cell, stream)
            if isinstance(found, Failure):
                return Failure(found.message, data)
            metrics = {"score": _metric(found.score, found), "accuracy": self._accuracy(cell.target, stream)}
            if found.accuracy is not None:
                metrics["estimate"] = _metric(found.accuracy, found)
            return Measured({**data, "metrics": metrics, "facts": dict(found.facts)})
        except Exception as error:  # a stranger's estimator or dataset may raise anything
            place = cell.model.label, cell.worker.label, cell.target.name
            logger.warning("%s, estimator %s on %s: %s", *place, describe(error))
            return Failure(describe(error), data)

    def _estimated(self, cell: EstimateCell, stream: Stream) -> Estimate | Failure:
        estimator, bench, name = cell.worker, self.job.bench, cell.target.name
        fitted: Estimator | Failure = bench.fitted(estimator, also=FITTED_WITH)
        if isinstance(fitted, Failure):
            return fitted
        fields = (estimator.needs & FEATURE_FIELDS) - {"labels"} | {"ids"}
        peer = self.job.peer() if PEER in estimator.needs else None
        others = peer.features(name, stream).only(fields) if peer is not None else None
        seed = settings(self.job.plan.suite).seed
        features = bench.features(name, stream).only(fields)
        given = unlabelled(bench.decoder, stream, features, seed=seed, peer=others)
        with bench.clock.measure_with_memory("estimate", scorer=estimator.label, on=name):
            return checked(fitted.estimate(given))

    def _stream(self, target: Target) -> Stream:
        """Open a target, once. Raises HarnessError if its set could not be opened."""
        if target.name not in self._streams:
            chosen = self._selection(target)
            self._streams[target.name] = Stream.of(chosen, batch_size=self.job.plan.suite.batch_size)
        return self._streams[target.name]

    def _selection(self, target: Target) -> Selection:
        size = settings(self.job.plan.suite).size
        if target.group != CALIBRATION:
            return self.job.sets.selection(target.name).limited(size)
        validation = self.job.sets.id_data.validation
        assert validation is not None  # there are targets of validation data only if the suite names them
        limited = validation.limited(size)
        return (
            limited if target.shift is None else open_shifted(target.shift, limited, self.job.plan.registry)
        )

    def _accuracy(self, target: Target, stream: Stream) -> dict[str, float | None]:
        """Compute the model's true accuracy on a target, once for all estimators."""
        if target.name not in self._accuracies:
            features = self.job.bench.features(target.name, stream)
            self._accuracies[target.name] = measures.model_metrics(features)["accuracy"]
        return self._accuracies[target.name]


def missing_needs(job: Job, estimator: Planned) -> list[str]:
    """List what an estimator needs and neither the model, the data nor another training of the model offer."""
    given = {PEER} if PEER in estimator.needs and job.peer() is not None else set()
    return job.bench.missing(frozenset({"logits", *estimator.needs}) - given)


def _metric(value: float, found: Estimate) -> dict[str, float | None]:
    return {"value": value, "lo": found.lo, "hi": found.hi}


def checked(found: object) -> Estimate:
    """Refuse what is no estimate: InputError."""
    if not isinstance(found, Estimate):
        raise InputError(f"gave a {type(found).__name__}. Return harness.Estimate(score)")
    if not np.isfinite(found.score) or (found.accuracy is not None and not 0 <= found.accuracy <= 1):
        raise InputError(
            f"gave a score of {found.score} and an accuracy of {found.accuracy}. Give a finite score, and an "
            "accuracy in 0..1 or None"
        )
    return found
