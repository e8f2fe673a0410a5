"""Builds adapters for passages; what one wants to see of the clean images beforehand, it is shown once a model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.data.streams import Stream
from harness.evaluations.adaptation.passage import Passage
from harness.models.extract import decoded_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness.contract.protocols import Adapter
    from harness.engine.plan import PlannedAdapter
    from harness.engine.recorder import Recorder
    from harness.models.decoded import Decoder

TRAIN = "train"  # the need of an adapter that is prepared


@dataclass(frozen=True, eq=False)
class Prepared:
    """The adapters of a model."""

    decoder: Decoder
    recorder: Recorder
    _prepared: dict[str, Adapter] = field(default_factory=dict)  # by label: what has seen the clean images

    @property
    def batch_size(self) -> int:
        """How many images an adapter meets at a time."""
        suite = self.recorder.plan.suite
        return suite.adaptation.batch_size or suite.batch_size

    def adapter(self, planned: PlannedAdapter) -> Adapter:
        """Build an adapter for one passage, as a copy of what has seen the clean images."""
        if TRAIN not in planned.needs:
            return planned.offered.spec.build(**planned.params)  # type: ignore[no-any-return]
        if planned.label not in self._prepared:
            classifier: Any = copy.deepcopy(self.decoder.model.model.classifier)
            built = planned.offered.spec.build(**planned.params)
            self._prepared[planned.label] = built.prepare(classifier.eval(), self._clean())
        return copy.deepcopy(self._prepared[planned.label])

    def passage(self, planned: PlannedAdapter) -> Passage:
        """Begin a passage of an adapter, from the model as it was trained."""
        after = self.recorder.plan.suite.adaptation.after
        return Passage(self.adapter(planned), self.decoder, after=after)

    def missing(self, planned: PlannedAdapter) -> list[str]:
        """List what neither the model nor the data offer."""
        needs = {"logits", *planned.needs}
        return sorted(needs - self.decoder.model.offers - self.recorder.id_data.offers)

    def fit(self, planned: PlannedAdapter) -> dict[str, str]:
        """Digest what an adapter sees beforehand."""
        train = self.recorder.id_data.train
        return {TRAIN: train.digest} if train is not None and TRAIN in planned.needs else {}

    def _clean(self) -> Iterator[Tensor]:
        """Decode ID training images in a random order, as many as the adapter takes."""
        train = self.recorder.id_data.train
        if train is None:
            return
        stream = Stream.mixed([train], batch_size=self.batch_size, seed=0)
        for batch in decoded_batches(self.decoder.model, stream):  # of which the adapter may take a few alone
            yield self.decoder.model.model.preprocessing.normalise(batch.to(self.decoder.model.device))
