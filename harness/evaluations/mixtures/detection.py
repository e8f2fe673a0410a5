"""OOD detection while a model adapts: scorers on what adapters make of ID and OOD that come together."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base import digests
from harness.base.errors import HarnessError
from harness.base.progress import progress_bar
from harness.data.streams import Stream
from harness.engine.scoring import Failure, describe, fit_scorer, score_features
from harness.evaluations import measures as evaluation
from harness.evaluations.adaptation.trace import traced
from harness.models.loaded import libraries
from harness.reports.records import SEPARATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from harness.contract.features import FeatureSet
    from harness.contract.protocols import AnyScorer
    from harness.data.mixtures import Mixer, Mixture, OpenStream
    from harness.engine.fits import Fits
    from harness.engine.plan import PlannedAdapter, PlannedModel, PlannedScorer
    from harness.evaluations.adaptation.prepared import Prepared
    from harness.evaluations.adaptation.trace import Trace
    from harness.evaluations.measures import Outcome

logger = logging.getLogger("ood_harness")

_FEATURES = frozenset({"logits", "penultimate", "head", "linear", "train", "validation", "labels"})


@dataclass(frozen=True)
class Contender:
    """A scorer in a row of its own: fitted on the source's features, or once more on adapted ones."""

    scorer: PlannedScorer
    is_refit: bool = False

    @property
    def label(self) -> str:
        """What its row is called."""
        return f"{self.scorer.label} (refit)" if self.is_refit else self.scorer.label


@dataclass(frozen=True, eq=False)
class Meeting:
    """An adapter and a mixture, with what the folder lacks of it."""

    adapter: PlannedAdapter
    mixture: Mixture
    contenders: Sequence[Contender]  # pending
    seeds: frozenset[int]  # of the streams whose records of the adapter are pending
    keys: Mapping[int, tuple[str, ...]]  # of the traces, by stream seed


@dataclass(frozen=True, eq=False)
class Detecting:
    """The scorers of one model under every adapter that meets OOD."""

    model: PlannedModel
    fits: Fits
    prepared: Prepared
    mixer: Mixer

    @property
    def cells(self) -> int:
        """How many records there are to be."""
        streams = len(self._settings.open_seeds)
        return sum(
            streams + len(self._contenders(adapter))
            for adapter in self._applicable
            for _ in self._plan.mixtures(adapter)
        )

    def not_applicable(self) -> list[dict[str, object]]:
        """List the adapters that the model lacks something for, and scorers that read more than adapters give."""
        place = {"model": self.model.label, "seed": self.model.seed}
        found: list[dict[str, object]] = []
        for adapter in self._plan.open_adapters:
            here = {**place, "adapter": adapter.label, "protocol": adapter.protocol}
            if missing := self.prepared.missing(adapter):
                found.append({**here, "missing": missing})
                continue
            shares = dict.fromkeys(mixture.percent for mixture in self._plan.mixtures(adapter))
            found += [
                {**here, "mixture": {"percent": percent}, "scorer": s.label, "missing": self._missing(s)}
                for percent in shares
                for s in self._plan.scorers
                if self._missing(s)
            ]
        return found

    def run(self) -> None:
        """Make every passage of which a number is missing, and score what it leaves."""
        meetings = [m for m in self._meetings() if m.contenders or m.seeds]
        with progress_bar(
            total=len(meetings) * len(self._settings.open_seeds),
            description=f"adapt {self.model.label} (seed {self.model.seed}) to mixtures",
            unit="stream",
            enabled=self.fits.means.progress and bool(meetings),
        ) as bar:
            for meeting in meetings:
                by_stream = []
                for seed in self._settings.open_seeds:
                    by_stream.append(self._on_stream(meeting, seed))
                    bar.update()
                for number, contender in enumerate(meeting.contenders):
                    self._record(meeting, contender, [outcomes[number] for outcomes in by_stream])

    # What there is to do ----------------------------------------------------------------------------------------

    @property
    def _plan(self) -> Any:
        return self.fits.means.recorder.plan

    @property
    def _settings(self) -> Any:
        return self._plan.suite.adaptation

    @cached_property
    def _applicable(self) -> list[PlannedAdapter]:
        return [a for a in self._plan.open_adapters if not self.prepared.missing(a)]

    def _missing(self, scorer: PlannedScorer) -> list[str]:
        return sorted({*self.fits.missing(scorer.needs), *(scorer.needs - _FEATURES)})

    def _contenders(self, adapter: PlannedAdapter) -> list[Contender]:
        """List the applicable scorers, and once more those that training data alone can fit again."""
        found = [Contender(s) for s in self._plan.scorers if not self._missing(s)]
        if self._refits(adapter):
            needs = [(contender.scorer, contender.scorer.needs) for contender in found]
            found += [
                Contender(s, is_refit=True) for s, of in needs if "train" in of and "validation" not in of
            ]
        return found

    def _refits(self, adapter: PlannedAdapter) -> bool:
        """Say whether scorers are fitted on adapted features too; of two models, one a side, neither is the one."""
        return bool(self._settings.refit and self._train is not None and adapter.protocol != SEPARATE)

    @cached_property
    def _train(self) -> Stream | None:
        train = self.fits.means.recorder.id_data.train
        if train is None or not self._settings.refit:
            return None
        chosen = train.limited(self._settings.refit)
        return Stream.mixed([chosen], batch_size=self.prepared.batch_size, seed=0)

    def _meetings(self) -> Iterator[Meeting]:
        for adapter in self._applicable:
            for mixture in self._plan.mixtures(adapter):
                try:
                    keys = {seed: self._keys(adapter, mixture, seed) for seed in self._settings.open_seeds}
                except Exception as error:  # a stranger's dataset may raise anything
                    self._fail(adapter, mixture, describe(error))
                    continue
                contenders = [
                    contender
                    for contender in self._contenders(adapter)
                    if not self._is_done(adapter, mixture, contender.label, self._code_id(contender, keys))
                ]
                seeds = frozenset(
                    seed
                    for seed, of_seed in keys.items()
                    if not self._is_done(adapter, mixture, f"stream {seed}", digests.digest(of_seed))
                )
                yield Meeting(adapter, mixture, contenders, seeds, keys)

    def _is_done(self, adapter: PlannedAdapter, mixture: Mixture, what: str, code_id: str) -> bool:
        cell_id = self._plan.mixture_id(self.model, adapter, mixture, what)
        return self.fits.means.recorder.folder.is_done(cell_id, code_id)

    def _fail(self, adapter: PlannedAdapter, mixture: Mixture, message: str) -> None:
        """Record that a mixture cannot be made."""
        logger.warning("%s on %s: %s", adapter.label, mixture.name, message)
        recorder = self.fits.means.recorder
        for one in self._contenders(adapter):
            recorder.on_mixture(
                self.model, adapter, mixture, "", scorer=one.scorer, label=one.label, error=message
            )
        for seed in self._settings.open_seeds:
            recorder.on_mixture(self.model, adapter, mixture, "", stream_seed=seed, error=message)

    # Streams ----------------------------------------------------------------------------------------------------

    def _streams(self, adapter: PlannedAdapter, mixture: Mixture, seed: int) -> list[OpenStream]:
        """Make the streams of a seed. Raises DatasetError where the OOD set could not be opened."""
        opened: Any = self.fits.means.recorder.streams[mixture.ood.name]
        if isinstance(opened, Failure):
            raise HarnessError(opened.message)
        separate = adapter.protocol == SEPARATE
        return self.mixer.streams(mixture, opened.parts[0], seed=seed, separate=separate)

    def _keys(self, adapter: PlannedAdapter, mixture: Mixture, seed: int) -> tuple[str, ...]:
        """Name the traces of a seed's streams in the cache, by all that they depend on."""
        train = self._train.digest if self._train is not None and self._refits(adapter) else None
        described = {
            "name": adapter.offered.spec.name,
            "params": adapter.params,
            "source": adapter.offered.source,
            "version": adapter.offered.version,
            "fit": self.prepared.fit(adapter),
            "after": self._settings.after,
            "refit": train,
        }
        streams = self._streams(adapter, mixture, seed)
        return tuple(
            self.fits.loaded.features_key(s.stream, layers=False, adapter=described) for s in streams
        )

    def _on_stream(self, meeting: Meeting, seed: int) -> list[Outcome]:
        """Adapt to the streams of one seed, record what came of it, and score: an outcome a contender."""
        adapter, on = meeting.adapter, meeting.mixture.name
        try:
            streams = self._streams(adapter, meeting.mixture, seed)
            with self.fits.means.clock.measure_with_memory("adapt", scorer=adapter.label, on=on):
                pairs = zip(streams, meeting.keys[seed], strict=True)
                traces = [self._trace(adapter, s.stream, key) for s, key in pairs]
        except Exception as error:  # a stranger's adapter may raise anything
            message = f"stream {seed}: {describe(error)}"
            logger.warning("%s, adapter %s on %s: %s", self.model.label, adapter.label, on, message)
            self._record_stream(meeting, seed, error=message)
            return [Failure(message)] * len(meeting.contenders)
        if seed in meeting.seeds:
            is_id = ~streams[0].is_ood
            counts = {"n_id": int(is_id.sum()), "n_ood": sum(int(s.is_ood.sum()) for s in streams)}
            metrics = traces[0].metrics(is_id, num_outputs=self.fits.loaded.model.num_classes)
            self._record_stream(meeting, seed, metrics=metrics, **counts)
        return self._scored(meeting, streams, traces)

    def _trace(self, adapter: PlannedAdapter, stream: Stream, key: str) -> Trace:
        train = self._train if self._refits(adapter) else None
        return traced(
            lambda: self.prepared.passage(adapter),
            stream,
            self.fits.means.cache,
            key,
            device=self.fits.loaded.device,
            train=train,
        )

    # Scores -----------------------------------------------------------------------------------------------------

    def _scored(self, meeting: Meeting, streams: list[OpenStream], traces: list[Trace]) -> list[Outcome]:
        import torch

        refit = traces[0].refit
        fitted = {contender.label: self._fitted(contender, refit) for contender in meeting.contenders}
        ready: dict[str, Any] = {
            contender.label: (contender.scorer, scorer)
            for contender in meeting.contenders
            if not isinstance(scorer := fitted[contender.label], Failure)
        }
        parts = [
            score_features(ready, trace.features, self.fits.means.clock, on=meeting.mixture.name)
            for trace in traces
        ]
        is_ood = torch.cat([torch.from_numpy(s.is_ood) for s in streams]).to(self.fits.loaded.device)
        return [
            scorer if isinstance(scorer, Failure) else _sides([part[label] for part in parts], is_ood)
            for label, scorer in fitted.items()
        ]

    def _fitted(self, contender: Contender, refit: FeatureSet | None) -> AnyScorer | Failure:
        if not contender.is_refit:
            return self.fits.scorer(contender.scorer)
        return fit_scorer(contender.scorer, self.fits.loaded, refit, None, self.fits.means.clock)

    # Records ----------------------------------------------------------------------------------------------------

    def _record_stream(self, meeting: Meeting, seed: int, **measured: Any) -> None:
        self.fits.means.recorder.on_mixture(
            self.model,
            meeting.adapter,
            meeting.mixture,
            digests.digest(meeting.keys[seed]),
            stream_seed=seed,
            **measured,
        )

    def _record(self, meeting: Meeting, contender: Contender, outcomes: list[Outcome]) -> None:
        self.fits.means.recorder.on_mixture(
            self.model,
            meeting.adapter,
            meeting.mixture,
            self._code_id(contender, meeting.keys),
            scorer=contender.scorer,
            label=contender.label,
            **evaluation.of_streams(outcomes),
        )

    def _code_id(self, contender: Contender, keys: Mapping[int, tuple[str, ...]]) -> str:
        scorer, features = contender.scorer, digests.digest(list(keys.values()))
        return digests.code_id(
            id_features=features,
            ood_features=features,
            fit=self.fits.means.recorder.id_data.digests_of(scorer.needs)
            | {"refit": str(contender.is_refit)},
            scorer=scorer.offered.spec.name,
            params=scorer.params,
            source=scorer.offered.source,
            version=scorer.offered.version,
            libraries=libraries(),
        )


def _sides(parts: list[Tensor | Failure], is_ood: Tensor) -> Outcome:
    """Join the scores of a seed's streams, and tell ID's from OOD's; the first failure, if there is one."""
    import torch

    scores = []
    for part in parts:
        if isinstance(part, Failure):
            return part
        scores.append(part)
    joined = torch.cat(scores)
    return joined[~is_ood], joined[is_ood]
