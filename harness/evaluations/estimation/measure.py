"""Runs the estimators of one model on ID test, on shifted ID, and on the shifted validation data that curves need."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable  # noqa: TC003  # a field's type
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import digests
from harness.base.errors import InputError
from harness.base.progress import progress_bar
from harness.contract.features import Estimate
from harness.contract.specs import FEATURE_FIELDS, PEER
from harness.data.opening import CALIBRATION, CLEAN, CSID, calibration_sets
from harness.data.streams import Stream
from harness.engine.recorder import ID
from harness.engine.scoring import Failure, describe, fit_estimator
from harness.evaluations import measures as evaluation
from harness.models.loaded import libraries
from harness.models.unlabelled import unlabelled

if TYPE_CHECKING:
    from harness.contract.protocols import Catalogue, Estimator
    from harness.engine.fits import Fits
    from harness.engine.plan import PlannedEstimator, PlannedModel
    from harness.models.decoded import Decoder

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class Target:
    """A labelled set on which estimators are run, as if it had no labels."""

    name: str
    group: str  # id, csid or calibration
    kind: str  # of its shift
    stream: Stream


@dataclass(frozen=True, eq=False)
class Estimating:
    """The estimators that apply to a model, and which of their numbers the folder lacks."""

    model: PlannedModel
    fits: Fits
    decoder: Decoder
    catalogue: Catalogue
    peer: Callable[[], Fits | None]  # another training of the model
    _fitted: dict[str, Estimator | Failure] = field(default_factory=dict)
    _accuracies: dict[str, dict[str, float | None]] = field(default_factory=dict)  # by target

    @property
    def cells(self) -> int:
        """How many records there are to be."""
        return len(self._applicable) * (len(self._targets) + len(self._closed)) if self._applicable else 0

    def not_applicable(self) -> list[dict[str, object]]:
        """List the estimators whose needs exceed what the model and the data offer, with what is missing."""
        place = {"model": self.model.label, "seed": self.model.seed}
        return [
            {**place, "estimator": e.label, "missing": self._missing(e)}
            for e in self._plan.estimators
            if self._missing(e)
        ]

    def run(self) -> None:
        """Estimate what the folder lacks, and record each number or its error."""
        for estimator, (name, failure) in itertools.product(self._applicable, self._closed.items()):
            self.fits.means.recorder.estimate(
                self.model, estimator, name, None, "", group=CSID, kind_of_shift=name, error=failure.message
            )
        work = [
            (estimator, target, code_id)
            for estimator, target in itertools.product(self._applicable, self._targets)
            if not self._is_done(estimator, target, code_id := self._code_id(estimator, target))
        ]
        with progress_bar(
            total=len(work),
            description=f"estimate {self.model.label} (seed {self.model.seed})",
            unit="set",
            enabled=self.fits.means.progress and bool(work),
        ) as bar:
            for estimator, target, code_id in work:
                self._record(estimator, target, code_id, self._estimated(estimator, target))
                bar.update()

    # What there is to do ----------------------------------------------------------------------------------------

    @property
    def _plan(self) -> Any:
        return self.fits.means.recorder.plan

    @cached_property
    def _applicable(self) -> list[PlannedEstimator]:
        return [estimator for estimator in self._plan.estimators if not self._missing(estimator)]

    def _missing(self, estimator: PlannedEstimator) -> list[str]:
        offered = {PEER} if PEER in estimator.needs and self.peer() is not None else set()
        return sorted({"logits", *estimator.needs} - offered - self.fits.offers)

    @cached_property
    def _targets(self) -> list[Target]:
        """List ID test, shifted ID, and validation data as they are and under each shift that is for calibration."""
        recorder, size = self.fits.means.recorder, self._plan.suite.estimation.size
        found = []
        kinds = {entry.name: entry.kind for entry in self._plan.sets if entry.group == CSID}
        for name in (ID, *kinds):
            stream = recorder.streams[name]
            if isinstance(stream, Stream):
                limited = Stream.of(stream.parts[0].limited(size), batch_size=stream.batch_size)
                found.append(Target(name, ID if name == ID else CSID, kinds.get(name, CLEAN), limited))
        return found + self._calibration(size)

    @cached_property
    def _closed(self) -> dict[str, Failure]:
        """The shifted sets that could not be opened."""
        streams, sets = self.fits.means.recorder.streams, self._plan.sets
        shifted = {entry.name: streams[entry.name] for entry in sets if entry.group == CSID}
        return {name: stream for name, stream in shifted.items() if isinstance(stream, Failure)}

    def _calibration(self, size: int | None) -> list[Target]:
        validation = self.fits.means.recorder.id_data.validation
        if validation is None:
            return []
        sets = calibration_sets(validation.limited(size), self._plan.calibration, self.catalogue)
        batch_size = self._plan.suite.batch_size
        return [
            Target(
                "validation" if kind == CLEAN else f"validation+{chosen.name}",
                CALIBRATION,
                kind,
                Stream.of(chosen, batch_size=batch_size),
            )
            for kind, chosen in sets
        ]

    def _is_done(self, estimator: PlannedEstimator, target: Target, code_id: str) -> bool:
        cell_id = self._plan.estimate_id(self.model, estimator, target.name)
        return self.fits.means.recorder.folder.is_done(cell_id, code_id)

    def _code_id(self, estimator: PlannedEstimator, target: Target) -> str:
        data, offered = self.fits.means.recorder.id_data, estimator.offered
        peer = self.peer() if PEER in estimator.needs else None
        return digests.estimate_code_id(
            features=self.fits.loaded.features_key(target.stream, layers=False),
            fit=data.digests_of(estimator.needs),
            peer=peer.loaded.digest if peer is not None else None,
            estimator=offered.spec.name,
            params=estimator.params,
            seed=self._plan.suite.estimation.seed,
            source=offered.source,
            version=offered.version,
            libraries=libraries(),
        )

    # Estimates --------------------------------------------------------------------------------------------------

    def _estimated(self, estimator: PlannedEstimator, target: Target) -> Estimate | Failure:
        try:
            fitted = self._fit(estimator)
            if isinstance(fitted, Failure):
                return fitted
            fields = (estimator.needs & FEATURE_FIELDS) - {"labels"} | {"ids"}
            whole = self.fits.extract(target.name, target.stream, {}).features
            peer = self.peer() if PEER in estimator.needs else None
            others = peer.extract(target.name, target.stream, {}).features.only(fields) if peer else None
            seed = self._plan.suite.estimation.seed
            given = unlabelled(self.decoder, target.stream, whole.only(fields), seed=seed, peer=others)
            clock = self.fits.means.clock
            with clock.measure_with_memory("estimate", scorer=estimator.label, on=target.name):
                return _checked(fitted.estimate(given))
        except Exception as error:  # a stranger's estimator may raise anything
            return Failure(describe(error))

    def _fit(self, estimator: PlannedEstimator) -> Estimator | Failure:
        if estimator.label not in self._fitted:
            self._fitted[estimator.label] = fit_estimator(
                estimator, self.fits.loaded, self.fits.validation(), self.fits.means.clock
            )
        return self._fitted[estimator.label]

    def _record(
        self, estimator: PlannedEstimator, target: Target, code_id: str, outcome: Estimate | Failure
    ) -> None:
        recorder = self.fits.means.recorder
        place = {"kind_of_shift": target.kind, "group": target.group}
        if isinstance(outcome, Failure):
            message = outcome.message
            logger.warning(
                "%s, estimator %s on %s: %s", self.model.label, estimator.label, target.name, message
            )
            recorder.estimate(
                self.model, estimator, target.name, target.stream, code_id, error=message, **place
            )
            return
        metrics = {
            "score": _metric(outcome.score, outcome.lo, outcome.hi),
            "accuracy": self._accuracy(target),
        }
        if outcome.accuracy is not None:
            metrics["estimate"] = _metric(outcome.accuracy, outcome.lo, outcome.hi)
        recorder.estimate(
            self.model, estimator, target.name, target.stream, code_id,
            metrics=metrics, facts=dict(outcome.facts), **place,
        )  # fmt: skip

    def _accuracy(self, target: Target) -> dict[str, float | None]:
        """Compute the model's true accuracy on a set, once for all estimators."""
        if target.name not in self._accuracies:
            features = self.fits.extract(target.name, target.stream, {}).features
            self._accuracies[target.name] = evaluation.model_metrics(features)["accuracy"]
        return self._accuracies[target.name]


def _metric(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "lo": low, "hi": high}


def _checked(found: object) -> Estimate:
    if not isinstance(found, Estimate):
        raise InputError(f"gave a {type(found).__name__}. Return harness.Estimate(score)")
    if not np.isfinite(found.score) or (found.accuracy is not None and not 0 <= found.accuracy <= 1):
        raise InputError(
            f"gave a score of {found.score} and an accuracy of {found.accuracy}. Give a finite score, and an "
            "accuracy in 0..1 or None"
        )
    return found
