"""Scores of whole streams: transductive scorers on mixtures of ID test and an OOD set, with several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import InputError
from harness.base.strangers import undisturbed
from harness.contract.features import FeatureSet, StreamScores
from harness.contract.scores import as_count, as_numbers, as_scores
from harness.contract.specs import FEATURE_FIELDS, STREAM
from harness.data.mixtures import Mixture
from harness.data.sets import CSID
from harness.engine.evaluation import Evaluation, Measured, Sitting
from harness.engine.guard import Failure, attempt
from harness.evaluations import measures
from harness.evaluations.adaptation.section import mixer, settings
from harness.evaluations.scores.features import checked_scores
from harness.evaluations.scores.scoring import ScoreCell, score_cells
from harness.models.decoded import unlabelled
from harness.reports.record import SCORE, TRANSDUCTIVE
from harness.statistics import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from harness.contract.protocols import StreamScorer
    from harness.data.mixtures import OpenStream
    from harness.data.sets import SetEntry
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.evaluations.measures import Outcome

HALVES = (0.5, 0.0, 0.5)  # the shares of ID, shifted ID and OOD


@dataclass(frozen=True)
class Beside:
    """A scorer's report on one stream beside its scores."""

    facts: Mapping[str, float]
    aurocs: Mapping[str, float]  # of its other scores


class Transducing(Sitting[ScoreCell]):
    """The transductive scorers of one model."""

    title = "score streams"

    def key(self, cell: ScoreCell) -> str:
        """Digest everything that the cell's numbers depend on."""
        loaded = self.job.bench.loaded
        streams = [self._stream(cell, seed).stream for seed in self._seeds]
        features = [loaded.features_key(stream, layers=False) for stream in streams]
        return self.job.key(cell.worker, features, measures.METRICS)

    def measured(self, cell: ScoreCell) -> Measured | Failure:
        """Score the streams of a cell."""
        outcomes: list[Outcome] = []
        beside = [Beside({}, {}) for _ in self._seeds]
        for number, seed in enumerate(self._seeds):
            found = attempt(self._on_stream, cell, seed)
            if isinstance(found, Failure):
                outcomes.append(Failure(f"stream {seed}: {found.message}"))
            else:
                outcome, beside[number] = found
                outcomes.append(outcome)
        found_all = measures.of_streams(outcomes)
        if isinstance(found_all, Failure):
            return Failure(found_all.message, _mean(beside))
        flags = [*found_all.content["flags"], TRANSDUCTIVE]
        return Measured({**found_all.content, **_mean(beside), "flags": flags})

    @property
    def _seeds(self) -> list[int]:
        return settings(self.job.plan.suite).open_seeds

    def _stream(self, cell: ScoreCell, seed: int) -> OpenStream:
        outliers = self.job.sets.selection(cell.on)
        mixture = Mixture(HALVES, cell.entry, None)
        (stream,) = mixer(self.job).streams(mixture, outliers, seed=seed, separate=False)
        return stream

    def _on_stream(self, cell: ScoreCell, seed: int) -> tuple[Outcome, Beside]:
        bench, scorer, stream = self.job.bench, cell.worker, self._stream(cell, seed)
        built: StreamScorer | Failure = bench.fitted(scorer)
        if isinstance(built, Failure):
            raise built.error()
        target = unlabelled(bench.decoder, stream.stream, self._features(cell, stream), seed=seed)
        with (
            undisturbed(bench.loaded.device),
            bench.clock.measure("score", scorer=scorer.label, on=cell.on),
            bench.loaded.pace.on_chosen_threads(stream.stream.batch_size),
        ):
            found = built.score_stream(target)
        scores, variants = _checked(found, len(target), bench.loaded.device)
        facts = as_numbers(found.facts, "facts")
        forwards, backwards = as_count(found.forwards, "forwards"), as_count(found.backwards, "backwards")
        bench.clock.count(scorer.label, on=cell.on, forwards=forwards, backwards=backwards)
        sides = {name: _sides(scores, stream) for name, scores in variants.items()}
        beside = Beside(facts, {name: metrics.auroc(*pair) for name, pair in sides.items()})
        checked = checked_scores(scores)
        return (checked if isinstance(checked, Failure) else _sides(checked, stream)), beside

    def _features(self, cell: ScoreCell, stream: OpenStream) -> FeatureSet:
        fields = cell.worker.needs & FEATURE_FIELDS - {"labels"}
        if not fields:
            return FeatureSet({"ids": np.arange(len(stream.stream))}, device=self.job.bench.loaded.device)
        return self.job.bench.features(stream.stream.name, stream.stream).only(fields | {"ids"})


def _checked(found: object, length: int, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores and their variants, each (length,)."""
    if not isinstance(found, StreamScores):
        raise InputError(f"gave a {type(found).__name__}. Return harness.StreamScores")
    if not isinstance(found.variants, Mapping) or not all(isinstance(name, str) for name in found.variants):
        raise InputError(f"variants are a {type(found.variants).__name__}. Give scores by name")
    variants = found.variants.items()
    scores = as_scores(found.scores, length, device=device)
    return scores, {name: as_scores(of, length, device=device, name=repr(name)) for name, of in variants}


def _sides(scores: Tensor, stream: OpenStream) -> tuple[Tensor, Tensor]:
    import torch

    is_ood = torch.from_numpy(stream.is_ood).to(scores.device)
    return scores[~is_ood].double(), scores[is_ood].double()


def _mean(beside: list[Beside]) -> dict[str, Any]:
    """Average a scorer's reports over streams; nothing if it failed on one."""
    names = set.intersection(*(set(one.facts) for one in beside))
    variants = set.intersection(*(set(one.aurocs) for one in beside))
    return {
        "facts": {name: float(np.mean([one.facts[name] for one in beside])) for name in sorted(names)},
        "variants": {name: float(np.mean([one.aurocs[name] for one in beside])) for name in sorted(variants)},
    }


class Transductive(Evaluation[ScoreCell]):
    """Scorers that see a whole stream at once."""

    name = f"{SCORE} of a stream"
    cost_is_declared = True
    sitting = Transducing

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[ScoreCell]:
        """Yield OOD sets only: a mixture of ID and shifted ID has no OOD to detect."""

        def is_mine(scorer: Planned, entry: SetEntry) -> bool:
            return STREAM in scorer.needs and entry.group != CSID

        seeds = list(settings(plan.suite).open_seeds)
        return score_cells(plan, model, is_mine, seeds=seeds, flags=[TRANSDUCTIVE])
