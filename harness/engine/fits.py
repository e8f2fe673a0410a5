"""What has seen a model's ID data: features of its training and validation parts, and scorers fitted on them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.data.streams import Stream
from harness.engine.scoring import Failure, describe, fit_scorer
from harness.models.extract import extract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.base.cache import Cache
    from harness.contract.features import FeatureSet
    from harness.contract.protocols import AnyScorer
    from harness.engine.plan import PlannedScorer
    from harness.engine.recorder import Recorder
    from harness.engine.scoring import Clock
    from harness.models.extract import Counts, Extraction
    from harness.models.loaded import LoadedModel

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class Means:
    """What one model of a run is worked on with."""

    recorder: Recorder
    cache: Cache
    counts: Counts
    clock: Clock
    progress: bool = False


@dataclass(eq=False)
class Fits:
    """The scorers of one model, each fitted once, on features that are extracted once."""

    model: str  # what messages call it
    loaded: LoadedModel
    means: Means
    _parts: dict[str, FeatureSet | Failure] = field(default_factory=dict)
    _scorers: dict[str, AnyScorer | Failure] = field(default_factory=dict)

    @property
    def offers(self) -> frozenset[str]:
        """What the model and the data offer."""
        return self.loaded.offers | self.means.recorder.id_data.offers

    def missing(self, needs: frozenset[str]) -> list[str]:
        """List what neither the model nor the data offer."""
        return sorted(needs - self.offers)

    def scorer(self, planned: PlannedScorer) -> AnyScorer | Failure:
        """Return a scorer, fitted on what it declares of the source model's features, or why it could not be."""
        if planned.label not in self._scorers:
            outcome = self._fit(planned)
            if isinstance(outcome, Failure):
                logger.warning("%s, scorer %s: %s", self.model, planned.label, outcome.message)
            self._scorers[planned.label] = outcome
        return self._scorers[planned.label]

    def train(self) -> FeatureSet | Failure | None:
        """Return the features of ID train; None where there is none."""
        return self._part("train") if self.means.recorder.id_data.train is not None else None

    def validation(self) -> FeatureSet | Failure | None:
        """Return the features of ID validation; None where there is none."""
        return self._part("validation") if self.means.recorder.id_data.validation is not None else None

    def extract(self, name: str, stream: Stream, readers: Mapping[str, Any]) -> Extraction:
        """Extract a stream, with the scorers that read images, and note the time."""
        with self.means.clock.measure("extract", on=name):
            return extract(
                self.loaded,
                stream,
                self.means.cache,
                layers=self._reads_layers,
                image_scorers=readers,
                counts=self.means.counts,
                progress=self.means.progress,
            )

    @property
    def _reads_layers(self) -> bool:
        plan = self.means.recorder.plan
        applicable = [s.needs for s in plan.scorers if not self.missing(s.needs)]
        return any("layers" in needs for needs in (*applicable, *(probe.needs for probe in plan.probes)))

    def _fit(self, planned: PlannedScorer) -> AnyScorer | Failure:
        given: dict[str, FeatureSet] = {}
        for name in sorted({"train", "validation"} & planned.needs):
            features = self._part(name)
            if isinstance(features, Failure):
                return Failure(f"ID {name}: {features.message}")
            given[name] = features
        return fit_scorer(planned, self.loaded, given.get("train"), given.get("validation"), self.means.clock)

    def _part(self, name: str) -> FeatureSet | Failure:
        if name not in self._parts:
            recorder = self.means.recorder
            part: Any = getattr(recorder.id_data, name)
            try:
                stream = Stream.of(part, batch_size=recorder.plan.suite.batch_size)
                self._parts[name] = self.extract(name, stream, {}).features
            except Exception as error:  # a stranger's dataset or model may raise anything
                self._parts[name] = Failure(describe(error))
        return self._parts[name]
