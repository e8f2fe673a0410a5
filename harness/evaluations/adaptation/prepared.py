"""Builds adapters for passages. An adapter that needs clean ID images first sees them once per model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base.strangers import undisturbed
from harness.contract.isolated import Address
from harness.data.streams import Stream
from harness.evaluations.adaptation.learner import IsolatedLearner, Learner
from harness.evaluations.adaptation.passage import Passage
from harness.evaluations.adaptation.section import batch_size, settings
from harness.models.extract import decoded_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness.contract.protocols import Adapter, PreparedAdapter
    from harness.engine.suite import Suite
    from harness.engine.workbench import Workbench
    from harness.evaluations.adaptation.learner import Learns
    from harness.evaluations.adaptation.section import PlannedAdapter

TRAIN = "train"  # the need of an adapter that is prepared


@dataclass(frozen=True, eq=False)
class Prepared:
    """The adapters of one model."""

    bench: Workbench
    _prepared: dict[str, Adapter] = field(default_factory=dict)  # by label, after the clean images
    _isolated: dict[str, IsolatedLearner] = field(default_factory=dict)  # by label

    def passage(self, planned: PlannedAdapter, suite: Suite) -> Passage:
        """Begin a passage of an adapter, from the model as it was trained."""
        learner = self._learner(planned, batch_size(suite))
        return Passage(learner, self.bench.decoder, after=settings(suite).after)

    def _learner(self, planned: PlannedAdapter, size: int) -> Learns:
        classifier = self.bench.loaded.model.classifier
        if not self.bench.isolation.covers(planned.offered):
            return Learner(self._adapter(planned, size), classifier)
        if planned.label not in self._isolated:
            self._isolated[planned.label] = IsolatedLearner(
                Address.of(planned.offered, planned.params),
                self.bench.isolation,
                self.bench.loaded.device,
                clean=(lambda: self._clean(size)) if TRAIN in planned.needs else None,
                classifier=classifier,
            )
        return self._isolated[planned.label].anew()

    def _adapter(self, planned: PlannedAdapter, size: int) -> Adapter:
        """Build an adapter for one passage, as a copy of the one that has seen the clean images."""
        if TRAIN not in planned.needs:
            plain: Adapter = planned.offered.spec.build(**planned.params)
            return plain
        if planned.label not in self._prepared:
            classifier: Any = copy.deepcopy(self.bench.loaded.model.classifier)
            with undisturbed(self.bench.loaded.device):  # the first passage draws what every other one draws
                built: PreparedAdapter = planned.offered.spec.build(**planned.params)
                self._prepared[planned.label] = built.prepare(classifier.eval(), self._clean(size))
        return copy.deepcopy(self._prepared[planned.label])

    def _clean(self, size: int) -> Iterator[Tensor]:
        """Decode ID training images in a random order, as many as the adapter takes."""
        model = self.bench.loaded
        stream = Stream.mixed([self.bench.parts[TRAIN]], batch_size=size, seed=0)
        for batch in decoded_batches(model, stream):  # the adapter may stop early
            yield model.model.preprocessing.normalise(batch.to(model.device))
