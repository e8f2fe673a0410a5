"""Builds adapters for passages. One that must see clean ID images first sees them once per model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.data.streams import Stream
from harness.evaluations.adaptation.passage import Passage
from harness.evaluations.adaptation.section import batch_size, settings
from harness.models.extract import decoded_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness.contract.protocols import Adapter, PreparedAdapter
    from harness.engine.evaluation import Job
    from harness.engine.suite import Suite
    from harness.engine.workbench import Workbench
    from harness.evaluations.adaptation.section import PlannedAdapter

TRAIN = "train"  # the need of an adapter that is prepared


@dataclass(frozen=True, eq=False)
class Prepared:
    """The adapters of one model."""

    bench: Workbench
    _prepared: dict[str, Adapter] = field(default_factory=dict)  # by label: what has seen the clean images

    def passage(self, planned: PlannedAdapter, suite: Suite) -> Passage:
        """Begin a passage of an adapter, from the model as it was trained."""
        adapter = self._adapter(planned, batch_size(suite))
        return Passage(adapter, self.bench.decoder, after=settings(suite).after)

    def missing(self, planned: PlannedAdapter) -> list[str]:
        """List what an adapter needs and neither the model nor the data offer."""
        return self.bench.missing(frozenset({"logits", *planned.needs}))

    def _adapter(self, planned: PlannedAdapter, size: int) -> Adapter:
        """Build an adapter for one passage, as a copy of the one that has seen the clean images."""
        if TRAIN not in planned.needs:
            plain: Adapter = planned.offered.spec.build(**planned.params)
            return plain
        if planned.label not in self._prepared:
            classifier = copy.deepcopy(self.bench.loaded.module).eval()
            built: PreparedAdapter = planned.offered.spec.build(**planned.params)
            self._prepared[planned.label] = built.prepare(classifier, self._clean(size))  # type: ignore[arg-type]
        return copy.deepcopy(self._prepared[planned.label])

    def _clean(self, size: int) -> Iterator[Tensor]:
        """Decode ID training images in a random order, as many as the adapter takes."""
        model = self.bench.loaded
        if TRAIN not in self.bench.parts:
            return
        stream = Stream.mixed([self.bench.parts[TRAIN]], batch_size=size, seed=0)
        for batch in decoded_batches(model, stream):  # of which the adapter may take a few only
            yield model.model.preprocessing.normalise(batch.to(model.device))


def fit_digests(job: Job, planned: PlannedAdapter) -> dict[str, str]:
    """Digest what an adapter sees before its first stream."""
    return job.sets.id_data.digests_of(planned.needs & {TRAIN})
