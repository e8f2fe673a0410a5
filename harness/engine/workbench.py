"""Shared tools for working on one model: cached extraction, one fitting, decoded images, counters and a clock."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from harness.base.errors import describe
from harness.base.strangers import RAISED, undisturbed
from harness.contract.features import FitData
from harness.contract.isolated import Isolation, isolated
from harness.contract.specs import FEATURE_FIELDS, INPUTS
from harness.data.streams import Stream
from harness.engine.guard import Failure, attempt
from harness.models.decoded import Decoder, Pixels
from harness.models.extract import Extraction, extract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.base.cache import Cache
    from harness.contract.features import FeatureSet
    from harness.contract.protocols import ImageScorer
    from harness.contract.selection import Selection
    from harness.engine.clock import Clock
    from harness.engine.plan import Planned
    from harness.models.extract import Counts
    from harness.models.loaded import LoadedModel

T = TypeVar("T")


@dataclass(eq=False)
class Workbench:
    """One loaded model with the tools that every evaluation of it shares.

    A stream is extracted once and a plugin's object fitted once, whatever the number of evaluations that use it. A
    failure is kept, too: it is raised again with the same message, and the work is not tried again.
    """

    name: str  # of the model, in messages
    loaded: LoadedModel
    parts: Mapping[str, Selection]  # of ID data, for fitting: "train" and "validation", if there are any
    batch_size: int
    cache: Cache
    counts: Counts
    clock: Clock
    is_labelled: bool = True  # whether the ID data have classes
    extracts_layers: bool = False
    progress: bool = False
    isolation: Isolation = field(default_factory=Isolation)
    _features: dict[str, FeatureSet | Failure] = field(default_factory=dict)  # by the stream's digest
    _fitted: dict[tuple[str, str], Any] = field(default_factory=dict)  # by spec type and label
    _shared: dict[object, Any] = field(default_factory=dict)

    def missing(self, needs: frozenset[str]) -> list[str]:
        """List the needs that neither the model nor the ID data offer."""
        labels = {"labels"} if self.is_labelled else set()
        return sorted(needs - self.loaded.offers - labels - self.parts.keys())

    @cached_property
    def decoder(self) -> Decoder:
        """Decoded images of streams, for evaluations that forward them by themselves."""
        return Decoder(self.loaded, self.counts)

    def features(self, on: str, stream: Stream) -> FeatureSet:
        """Return a stream's features, extracted once. Raises HarnessError if that failed."""
        return self.extract(on, stream, {}).features

    def observed(self, on: str, stream: Stream, needs: frozenset[str]) -> FeatureSet:
        """Return the fields of a stream that a probe needs; its pixels are read only if they are among them."""
        features = self.features(on, stream)
        if INPUTS in needs:
            features = features.beside(inputs=Pixels(self.decoder, stream))
        return features.only(needs & (FEATURE_FIELDS | {INPUTS}))

    def extract(self, on: str, stream: Stream, readers: Mapping[str, ImageScorer]) -> Extraction:
        """Extract a stream once, with the scorers that read images in the same pass, and note the time."""
        found = self._features.get(stream.digest)
        if isinstance(found, Failure):
            raise found.error()
        if found is not None and not readers:
            return Extraction(found)
        try:
            with self.clock.measure("extract", on=on):
                extraction = extract(
                    self.loaded,
                    stream,
                    self.cache,
                    layers=self.extracts_layers,
                    image_scorers=readers,
                    counts=self.counts,
                    progress=self.progress,
                )
        except RAISED as error:
            self._features[stream.digest] = Failure.of(error)
            raise
        self._features[stream.digest] = extraction.features
        return extraction

    def fitted(self, planned: Planned, *, also: frozenset[str] = frozenset()) -> Any:
        """Return a plugin's object, built and fitted once, or a Failure. `also` are fields beside the declared ones."""
        key = type(planned.offered.spec).__name__, planned.label
        if key not in self._fitted:
            parts = {name: self._part(name) for name in self.parts if name in planned.needs}
            self._fitted[key] = self.fit(planned, parts, also=also)
        return self._fitted[key]

    def fit(
        self,
        planned: Planned,
        parts: Mapping[str, FeatureSet | Failure | None],
        *,
        also: frozenset[str] = frozenset(),
    ) -> Any:
        """Build a plugin's object and fit it on parts of the ID data: on the fields that its spec declares."""
        needs, device = planned.needs, self.loaded.device
        fields = (needs & FEATURE_FIELDS) | {"ids"} | also
        given: dict[str, FeatureSet] = {}
        for name, features in parts.items():
            if isinstance(features, Failure):
                return Failure(f"ID {name}: {features.message}")
            if features is not None:
                given[name] = features.only(fields)
        try:
            with undisturbed(device), self.clock.measure("fit", scorer=planned.label):
                data = FitData(
                    **given, head=copy.deepcopy(self.loaded.head) if needs & {"head", "linear"} else None
                )
                if self.isolation.covers(planned.offered):
                    return isolated(planned.offered, planned.params, data, self.isolation, device=device)
                built = planned.offered.spec.build(**planned.params)
                return built.fit(data) if hasattr(built, "fit") else built
        except RAISED as error:
            return Failure(f"fit: {describe(error)}")

    def shared(self, make: Callable[[Workbench], T]) -> T:
        """Return `make(self)`, made once for all evaluations that ask for it."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found

    def _part(self, name: str) -> FeatureSet | Failure:
        return attempt(self.features, name, Stream.of(self.parts[name], batch_size=self.batch_size))
