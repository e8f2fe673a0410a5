"""Runs the estimators of one model on ID test, on shifted ID, and on the shifted validation data that curves need."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import InputError
from harness.base.strangers import undisturbed
from harness.contract.features import Estimate
from harness.contract.parameters import offer_taking
from harness.contract.scores import as_number, as_numbers
from harness.contract.specs import FEATURE_FIELDS, PEER
from harness.data.opening import calibration_sets, open_shifted
from harness.data.sets import CALIBRATION, CLEAN, CSID, calibration_entries
from harness.data.streams import Stream
from harness.engine.evaluation import Cell, Evaluation, Measured, Sitting
from harness.engine.guard import Failure, attempt
from harness.engine.plan import Planned, taken
from harness.evaluations import measures
from harness.evaluations.estimation.section import EstimationSection, settings
from harness.evaluations.estimation.table import estimate_table, estimate_text
from harness.evaluations.table_report import TableReport
from harness.models.decoded import unlabelled
from harness.reports.record import ESTIMATE, ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.contract.protocols import Estimator
    from harness.contract.registry import Registry
    from harness.contract.selection import Selection
    from harness.data.sets import SetEntry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.sets import OpenSets
    from harness.engine.suite import Suite
    from harness.engine.workbench import Workbench

VALIDATION = "validation"
FITTED_WITH = frozenset({"labels"})  # fields of validation data that estimators get beside the declared ones


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

    title = "estimate"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.settings = settings(job.plan.suite)
        self._streams: dict[str, Stream] = {}  # by target
        self._accuracies: dict[str, dict[str, float | None]] = {}  # by target

    def key(self, cell: EstimateCell) -> str:
        """Digest everything that the estimate depends on."""
        peer = self._peer(cell)
        features = self.job.bench.loaded.features_key(self._stream(cell.target), layers=False)
        return self.job.key(cell.worker, features, peer and peer.loaded.digest, self.settings.seed)

    def measured(self, cell: EstimateCell) -> Measured | Failure:
        """Run an estimator on one target."""
        data: dict[str, Any] = {"n_ood": None, "data": {"id": self.job.sets.id_data.test.digest, "ood": None}}
        found = attempt(self._found, cell, data)
        return Failure(found.message, data) if isinstance(found, Failure) else found

    def _found(self, cell: EstimateCell, data: dict[str, Any]) -> Measured | Failure:
        """Return the result, and note the target's data, which the record has even if the estimator fails."""
        estimator, bench, name = cell.worker, self.job.bench, cell.target.name
        stream = self._stream(cell.target)
        data["n_ood"], data["data"]["ood"] = len(stream), stream.parts[0].digest
        fitted: Estimator | Failure = bench.fitted(estimator, also=FITTED_WITH)
        if isinstance(fitted, Failure):
            return fitted
        found = asked(bench, estimator, fitted, stream, name, peer=self._peer(cell), seed=self.settings.seed)
        metrics = {"score": _metric(found.score, found), "accuracy": self._accuracy(cell.target, stream)}
        if found.accuracy is not None:
            metrics["estimate"] = _metric(found.accuracy, found)
        said = {"definition": found.definition} if found.definition else {}
        return Measured({**data, **said, "metrics": metrics, "facts": found.facts})

    def _peer(self, cell: EstimateCell) -> Workbench | None:
        return self.job.peer() if PEER in cell.needs else None

    def _stream(self, target: Target) -> Stream:
        """Open a target, once. Raises HarnessError if its set could not be opened."""
        if target.name not in self._streams:
            chosen = self._selection(target)
            self._streams[target.name] = Stream.of(chosen, batch_size=self.job.plan.suite.batch_size)
        return self._streams[target.name]

    def _selection(self, target: Target) -> Selection:
        if target.group != CALIBRATION:
            return self.job.sets.selection(target.name).limited(self.settings.size)
        limited = self.job.sets.id_data.parts[VALIDATION].limited(self.settings.size)
        return open_shifted(target.shift, limited, self.job.plan.registry) if target.shift else limited

    def _accuracy(self, target: Target, stream: Stream) -> dict[str, float | None]:
        """Compute the model's true accuracy on a target, once for all estimators."""
        if target.name not in self._accuracies:
            features = self.job.bench.features(target.name, stream)
            self._accuracies[target.name] = measures.model_accuracy(features, among=stream.parts[0].competing)
        return self._accuracies[target.name]


def asked(
    bench: Workbench,
    planned: Planned,
    fitted: Estimator,
    stream: Stream,
    name: str,
    *,
    peer: Workbench | None = None,
    seed: int = 0,
) -> Estimate:
    """Run a fitted estimator on a stream without labels. Raises InputError for a result that is no estimate."""
    fields = (planned.needs & FEATURE_FIELDS) - {"labels"} | {"ids"}
    others = peer.features(name, stream).only(fields) if peer is not None else None
    features = bench.features(name, stream).only(fields)
    target = unlabelled(bench.decoder, stream, features, seed=seed, peer=others)
    pace = bench.loaded.pace
    with (
        undisturbed(bench.loaded.device),
        bench.clock.measure_with_memory("estimate", scorer=planned.label, on=name),
        pace.on_chosen_threads(stream.batch_size),
    ):
        return checked(fitted.estimate(target))


def _metric(value: float, found: Estimate) -> dict[str, float | None]:
    return {"value": value, "lo": found.lo, "hi": found.hi}


def checked(found: object) -> Estimate:
    """Return an estimate that is one. Raises InputError for anything else."""
    if not isinstance(found, Estimate):
        raise InputError(f"gave a {type(found).__name__}. Return harness.Estimate(score)")
    accuracy = None if found.accuracy is None else as_number(found.accuracy, "accuracy")
    ends = {name: getattr(found, name) for name in ("lo", "hi")}
    interval = as_numbers({name: end for name, end in ends.items() if end is not None}, "the interval")
    if not isinstance(found.definition, str):
        raise InputError(f"definition is a {type(found.definition).__name__}. Give a few words")
    found = replace(
        found,
        score=as_number(found.score, "score"),
        accuracy=accuracy,
        lo=interval.get("lo"),
        hi=interval.get("hi"),
        facts=as_numbers(found.facts, "facts"),
    )
    if not np.isfinite(found.score) or (found.accuracy is not None and not 0 <= found.accuracy <= 1):
        raise InputError(
            f"gave a score of {found.score} and an accuracy of {found.accuracy}. Give a finite score, and an "
            "accuracy in 0..1 or None"
        )
    return found


class Estimation(Evaluation[EstimateCell]):
    """Estimates of a model's accuracy on unlabelled sets."""

    name = ESTIMATE
    sitting = Estimating
    section = EstimationSection
    report = TableReport(
        ESTIMATE,
        "estimates",
        "Print the errors of the estimates of accuracy, by estimator.",
        estimate_table,
        estimate_text,
    )

    def workers(self, suite: Suite, registry: Registry) -> dict[str, Iterable[Planned]]:
        """Resolve the estimators."""
        entries, isolation = suite.section(EstimationSection).estimators, suite.limits.isolation
        return {"estimators": [Planned(*taken("estimator", entry, registry, isolation)) for entry in entries]}

    def check(self, plan: Plan) -> None:
        """Raise HarnessError for an unknown shift of validation data."""
        for entry in calibration(plan) if plan.named("estimators") else ():
            offer_taking(plan.registry, "dataset", entry.dataset, entry.params)

    def open(self, plan: Plan, sets: OpenSets) -> None:
        """Open the shifts of validation data."""
        validation = sets.id_data.validation
        if plan.named("estimators") and validation is not None:
            calibration_sets(validation, calibration(plan), plan.registry)

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[EstimateCell]:
        """Yield every estimator on every target."""
        for estimator in plan.named("estimators"):
            for target in targets(plan):
                head = {
                    "kind": ESTIMATE,
                    "needs": sorted(estimator.needs),
                    "ood": None if target.name == ID else target.name,
                    "group": target.group,
                    "shift": target.kind,
                }
                cell_id = plan.cell_id(model, what=f"estimator {estimator.label}", on=target.name)
                place, needs = (
                    {"estimator": estimator.label},
                    frozenset({"logits", "labels", *estimator.needs}),
                )
                yield EstimateCell(model, estimator, ID, cell_id, place, head, needs, target=target)
