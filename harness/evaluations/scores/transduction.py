"""Scorers that look at a whole mixture of ID and OOD at once: transductive ones, on streams of several seeds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import digests
from harness.base.errors import HarnessError, InputError
from harness.base.progress import progress_bar
from harness.contract.features import FeatureSet, StreamScores
from harness.contract.specs import FEATURE_FIELDS, STREAM
from harness.data.mixtures import Mixture
from harness.data.opening import CSID
from harness.engine.scoring import Failure, checked_scores, describe
from harness.evaluations import measures as evaluation
from harness.models.loaded import libraries
from harness.models.unlabelled import unlabelled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.data.mixtures import Mixer, OpenStream
    from harness.data.opening import SetEntry
    from harness.engine.fits import Fits
    from harness.engine.plan import PlannedModel, PlannedScorer
    from harness.evaluations.measures import Outcome
    from harness.models.decoded import Decoder

logger = logging.getLogger("ood_harness")

HALVES = (0.5, 0.0, 0.5)  # ID as it is, and as many of the other set


@dataclass(frozen=True)
class Told:
    """What a scorer told of one stream beside its scores."""

    facts: Mapping[str, float]
    aurocs: Mapping[str, float]  # of its other scores


@dataclass(frozen=True, eq=False)
class Transducing:
    """The transductive scorers of one model, each on a mixture of ID test and every OOD set."""

    model: PlannedModel
    fits: Fits
    decoder: Decoder
    mixer: Mixer

    @cached_property
    def scorers(self) -> list[PlannedScorer]:
        """The applicable ones."""
        return [s for s in self._plan.scorers if STREAM in s.needs and not self.fits.missing(s.needs)]

    @property
    def cells(self) -> int:
        """How many records there are to be."""
        return len(self.scorers) * len(self._sets)

    def run(self) -> None:
        """Score what the folder lacks."""
        pending = [
            (entry, scorer, code_id)
            for entry in self._sets
            for scorer in self.scorers
            if not self._is_done(entry, scorer, code_id := self._code_id(entry, scorer))
        ]
        with progress_bar(
            total=len(pending) * len(self._seeds),
            description=f"score {self.model.label} (seed {self.model.seed}) on mixtures",
            unit="stream",
            enabled=self.fits.means.progress and bool(pending),
        ) as bar:
            for entry, scorer, code_id in pending:
                outcomes, told = [], []
                for seed in self._seeds:
                    outcome, beside = self._on_stream(entry, scorer, seed)
                    outcomes.append(outcome)
                    told.append(beside)
                    bar.update()
                self.fits.means.recorder.transductive(
                    self.model, scorer, entry, code_id, **evaluation.of_streams(outcomes), **_mean(told)
                )

    @property
    def _plan(self) -> Any:
        return self.fits.means.recorder.plan

    @property
    def _sets(self) -> list[SetEntry]:
        """The OOD sets: shifted ID is none, and in a mixture with ID there would be nothing to tell."""
        return [entry for entry in self._plan.sets if entry.group != CSID]

    @property
    def _seeds(self) -> list[int]:
        seeds: list[int] = self._plan.suite.adaptation.open_seeds
        return seeds

    def _is_done(self, entry: SetEntry, scorer: PlannedScorer, code_id: str) -> bool:
        cell_id = self._plan.cell_id(self.model, scorer.label, entry.name)
        return self.fits.means.recorder.folder.is_done(cell_id, code_id)

    def _stream(self, entry: SetEntry, seed: int) -> OpenStream:
        opened: Any = self.fits.means.recorder.streams[entry.name]
        if isinstance(opened, Failure):
            raise HarnessError(opened.message)
        (stream,) = self.mixer.streams(
            Mixture(HALVES, entry, None), opened.parts[0], seed=seed, separate=False
        )
        return stream

    def _on_stream(self, entry: SetEntry, scorer: PlannedScorer, seed: int) -> tuple[Outcome, Told]:
        clock, nothing = self.fits.means.clock, Told({}, {})
        try:
            stream = self._stream(entry, seed)
            built: Any = self.fits.scorer(scorer)
            if isinstance(built, Failure):
                return built, nothing
            features = self._features(scorer, stream)
            target = unlabelled(self.decoder, stream.stream, features, seed=seed)
            with clock.measure("score", scorer=scorer.label, on=entry.name):
                found: StreamScores = built.score_stream(target)
            _require_shapes(found, len(target))
        except Exception as error:  # a stranger's scorer may raise anything
            message = f"stream {seed}: {describe(error)}"
            logger.warning("%s, scorer %s on %s: %s", self.model.label, scorer.label, entry.name, message)
            return Failure(message), nothing
        clock.count(scorer.label, on=entry.name, forwards=found.forwards, backwards=found.backwards)
        sides = {name: _sides(scores, stream) for name, scores in found.variants.items()}
        beside = Told(dict(found.facts), {name: evaluation.auroc(*pair) for name, pair in sides.items()})
        checked = checked_scores(found.scores.double())
        return (checked if isinstance(checked, Failure) else _sides(checked, stream)), beside

    def _features(self, scorer: PlannedScorer, stream: OpenStream) -> FeatureSet:
        fields = scorer.needs & FEATURE_FIELDS - {"labels"}
        if not fields:
            return FeatureSet({"ids": np.arange(len(stream.stream))}, device=self.fits.loaded.device)
        return self.fits.extract(stream.stream.name, stream.stream, {}).features.only(fields | {"ids"})

    def _code_id(self, entry: SetEntry, scorer: PlannedScorer) -> str:
        """Digest all that a cell depends on; "" where its set cannot be opened."""
        try:
            streams = [self._stream(entry, seed).stream for seed in self._seeds]
        except Exception:  # what is wrong is told when it is scored
            return ""
        keys = digests.digest([self.fits.loaded.features_key(stream, layers=False) for stream in streams])
        data, offered = self.fits.means.recorder.id_data, scorer.offered
        return digests.code_id(
            id_features=keys,
            ood_features=keys,
            fit=data.digests_of(scorer.needs),
            scorer=offered.spec.name,
            params=scorer.params,
            source=offered.source,
            version=offered.version,
            libraries=libraries(),
        )


def _require_shapes(found: object, length: int) -> None:
    if not isinstance(found, StreamScores):
        raise InputError(f"gave a {type(found).__name__}. Return harness.StreamScores")
    for name, scores in {"scores": found.scores, **found.variants}.items():
        if tuple(scores.shape) != (length,):
            raise InputError(f"{name} have shape {tuple(scores.shape)} where ({length},) is expected")


def _sides(scores: Any, stream: OpenStream) -> tuple[Any, Any]:
    import torch

    is_ood = torch.from_numpy(stream.is_ood).to(scores.device)
    return scores[~is_ood].double(), scores[is_ood].double()


def _mean(told: list[Told]) -> dict[str, Any]:
    """Average over streams what a scorer told; nothing where it failed on one."""
    names = set.intersection(*(set(one.facts) for one in told))
    variants = set.intersection(*(set(one.aurocs) for one in told))
    return {
        "facts": {name: float(np.mean([one.facts[name] for one in told])) for name in sorted(names)},
        "variants": {name: float(np.mean([one.aurocs[name] for one in told])) for name in sorted(variants)},
    }
