"""Measures the probes of one model on every set, from the features that the scorers read."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.errors import InputError
from harness.contract.features import FitData, Measurement
from harness.contract.specs import FEATURE_FIELDS
from harness.data.opening import CSID
from harness.data.streams import Stream
from harness.engine.recorder import ID
from harness.engine.scoring import Failure, describe
from harness.models.loaded import libraries
from harness.reports.records import SEPARATE, SOURCE
from harness.statistics.intervals import normal_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract.features import FeatureSet
    from harness.contract.protocols import Probe
    from harness.engine.plan import PlannedModel, PlannedProbe
    from harness.engine.recorder import Recorder
    from harness.engine.scoring import Clock
    from harness.models.loaded import LoadedModel

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True, eq=False)
class Probing:
    """The probes that apply to a model, and which of their numbers the folder lacks."""

    model: PlannedModel
    loaded: LoadedModel
    recorder: Recorder
    clock: Clock
    train: Callable[[], FeatureSet | Failure | None]  # the training features

    @property
    def cells(self) -> int:
        """How many numbers there are to be."""
        return sum(len(self.on(name)) for name in self.recorder.streams)

    def not_applicable(self) -> list[dict[str, object]]:
        """List the probes whose needs exceed what the model and the data offer, with what is missing."""
        place = {"model": self.model.label, "seed": self.model.seed, "adapter": SOURCE, "protocol": SEPARATE}
        return [
            {**place, "probe": probe.label, "missing": self._missing(probe)}
            for probe in self.recorder.plan.probes
            if self._missing(probe)
        ]

    def on(self, name: str) -> list[PlannedProbe]:
        """List the probes of a set: one that needs labels is for the sets whose labels are ID's."""
        groups = {entry.name: entry.group for entry in self.recorder.plan.sets}
        is_labelled = name == ID or groups[name] == CSID
        return [p for p in self._applicable if is_labelled or "labels" not in p.needs]

    def pending(self, name: str) -> list[PlannedProbe]:
        """List the probes of a set whose numbers are not there yet."""
        folder, plan = self.recorder.folder, self.recorder.plan
        return [
            probe
            for probe in self.on(name)
            if not folder.is_done(plan.probe_id(self.model, probe, name), self._code_id(probe, name))
        ]

    def run(self, name: str, features: FeatureSet | Failure) -> None:
        """Measure a set's pending probes, and record each number or its error."""
        for probe in self.pending(name):
            outcome = features if isinstance(features, Failure) else self._measured(probe, name, features)
            if isinstance(outcome, Failure):
                logger.warning("%s, probe %s on %s: %s", self.model.label, probe.label, name, outcome.message)
                self.recorder.probe(
                    self.model, probe, name, self._code_id(probe, name), error=outcome.message
                )
                continue
            low, high = normal_interval(outcome.value, outcome.standard_error)
            metric = {"value": outcome.value, "lo": low, "hi": high}
            self.recorder.probe(
                self.model, probe, name, self._code_id(probe, name), metrics={probe.offered.spec.name: metric}
            )

    def _measured(self, probe: PlannedProbe, name: str, features: FeatureSet) -> Measurement | Failure:
        import torch

        fitted = self._fitted[probe.label]
        if isinstance(fitted, Failure):
            return fitted
        try:
            with torch.no_grad(), self.clock.measure("probe", scorer=probe.label, on=name):
                found = fitted.measure(features.only(probe.needs & FEATURE_FIELDS))
            return _checked(found)
        except Exception as error:  # a stranger's probe may raise anything
            return Failure(describe(error))

    @cached_property
    def _applicable(self) -> list[PlannedProbe]:
        return [probe for probe in self.recorder.plan.probes if not self._missing(probe)]

    @cached_property
    def _fitted(self) -> dict[str, Probe | Failure]:
        needs_train = any("train" in probe.needs for probe in self._applicable)
        train = self.train() if needs_train else None
        return {probe.label: self._fit(probe, train) for probe in self._applicable}

    def _fit(self, probe: PlannedProbe, train: FeatureSet | Failure | None) -> Probe | Failure:
        wants_train = "train" in probe.needs
        if wants_train and isinstance(train, Failure):
            return Failure(f"ID train: {train.message}")
        try:
            built: Any = probe.offered.spec.build(**probe.params)
            if not hasattr(built, "fit"):
                return built  # type: ignore[no-any-return]
            given = train if wants_train and not isinstance(train, Failure) else None
            with self.clock.measure("fit", scorer=probe.label):
                fitted: Probe = built.fit(
                    FitData(train=given.only(probe.needs & FEATURE_FIELDS) if given is not None else None)
                )
            return fitted
        except Exception as error:  # a stranger's probe may raise anything
            return Failure(f"fit: {describe(error)}")

    def _missing(self, probe: PlannedProbe) -> list[str]:
        return sorted(probe.needs - self.loaded.offers - self.recorder.id_data.offers)

    def _code_id(self, probe: PlannedProbe, name: str) -> str:
        """Digest all that the number depends on; "" where the set cannot be opened."""
        stream, data = self.recorder.streams[name], self.recorder.id_data
        if not isinstance(stream, Stream):
            return ""
        fit = {"train": data.train.digest} if "train" in probe.needs and data.train is not None else {}
        return digests.probe_code_id(
            features=self.loaded.features_key(stream, layers="layers" in probe.needs),
            fit=fit,
            probe=probe.offered.spec.name,
            params=probe.params,
            source=probe.offered.source,
            version=probe.offered.version,
            libraries=libraries(),
        )


def _checked(found: object) -> Measurement:
    if not isinstance(found, Measurement):
        raise InputError(f"gave a {type(found).__name__}. Return harness.Measurement(value)")
    error = found.standard_error
    if not math.isfinite(found.value) or (error is not None and not (math.isfinite(error) and error >= 0)):
        raise InputError(f"gave {found.value} ± {error}. A measurement must be finite")
    return found
