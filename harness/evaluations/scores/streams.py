"""Scores of whole streams: transductive scorers, each on mixtures of ID test and an OOD set, of several seeds."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base import digests
from harness.base.errors import InputError
from harness.base.progress import progress_bar
from harness.contract.features import FeatureSet, StreamScores
from harness.contract.specs import FEATURE_FIELDS, STREAM
from harness.data.mixtures import Mixture
from harness.data.sets import CSID
from harness.engine.evaluation import Cell, Evaluation, Measured, NotApplicable, Sitting
from harness.engine.guard import Failure, describe
from harness.evaluations import measures
from harness.evaluations.adaptation.section import settings
from harness.evaluations.mixing import mixer
from harness.evaluations.scores.features import checked_scores
from harness.evaluations.scores.scoring import code_id, not_applicable
from harness.models.unlabelled import unlabelled
from harness.reports.record import SCORE, TRANSDUCTIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from harness.contract.protocols import StreamScorer
    from harness.data.mixtures import OpenStream
    from harness.data.sets import SetEntry
    from harness.engine.evaluation import Job
    from harness.engine.plan import Plan, Planned, PlannedModel
    from harness.evaluations.measures import Outcome

logger = logging.getLogger("ood_harness")

HALVES = (0.5, 0.0, 0.5)  # ID as it is, and as many of the other set


@dataclass(frozen=True)
class Beside:
    """What a scorer reports of one stream beside its scores."""

    facts: Mapping[str, float]
    aurocs: Mapping[str, float]  # of its other scores


@dataclass(frozen=True, eq=False)
class StreamCell(Cell):
    """A model, a transductive scorer and an OOD set."""

    worker: Planned
    entry: SetEntry = field(kw_only=True)


class Transductive(Evaluation[StreamCell]):
    """Scorers that look at a whole stream at once."""

    name = f"{SCORE} of a stream"

    def cells(self, plan: Plan, model: PlannedModel) -> Iterable[StreamCell]:
        """Yield OOD sets only: a mixture of ID and shifted ID has no OOD to detect."""
        for entry in plan.sets:
            for scorer in plan.named("scorers"):
                if entry.group != CSID and STREAM in scorer.needs:
                    yield StreamCell(
                        model,
                        scorer,
                        entry.name,
                        plan.cell_id(model, what=scorer.label, on=entry.name),
                        {
                            "kind": SCORE,
                            "scorer": scorer.label,
                            "group": entry.group,
                            "flags": [TRANSDUCTIVE],
                        },
                        list(settings(plan.suite).open_seeds),
                        entry=entry,
                    )

    def begin(self, job: Job) -> Transducing:
        """Begin with one model."""
        return Transducing(job)


class Transducing(Sitting[StreamCell]):
    """The transductive scorers of one model."""

    def missing(self, cell: StreamCell) -> NotApplicable | None:
        """Return why the scorer does not apply to the model."""
        return not_applicable(self.job, cell.worker)

    def key(self, cell: StreamCell) -> str:
        """Digest all that the cell's numbers depend on."""
        loaded = self.job.bench.loaded
        streams = [self._stream(cell, seed).stream for seed in self._seeds]
        keys = digests.digest([loaded.features_key(stream, layers=False) for stream in streams])
        return code_id(self.job, cell.worker, keys, keys)

    def measure(self, cells: Sequence[StreamCell]) -> Iterator[tuple[StreamCell, Measured | Failure]]:
        """Score the streams of every cell."""
        model, bench = self.job.model, self.job.bench
        with progress_bar(
            total=len(cells) * len(self._seeds),
            description=f"score {model.label} (seed {model.seed}) on mixtures",
            unit="stream",
            enabled=bench.progress and bool(cells),
        ) as bar:
            for cell in cells:
                outcomes, beside = [], []
                for seed in self._seeds:
                    outcome, reported = self._on_stream(cell, seed)
                    outcomes.append(outcome)
                    beside.append(reported)
                    bar.update()
                found = measures.of_streams(outcomes)
                if isinstance(found, Measured):
                    flags = [*found.says["flags"], TRANSDUCTIVE]
                    found = Measured({**found.says, **_mean(beside), "flags": flags})
                else:
                    found = Failure(found.message, _mean(beside))
                yield cell, found

    @property
    def _seeds(self) -> list[int]:
        return settings(self.job.plan.suite).open_seeds

    def _stream(self, cell: StreamCell, seed: int) -> OpenStream:
        outliers = self.job.sets.selection(cell.on)
        mixture = Mixture(HALVES, cell.entry, None)
        (stream,) = mixer(self.job).streams(mixture, outliers, seed=seed, separate=False)
        return stream

    def _on_stream(self, cell: StreamCell, seed: int) -> tuple[Outcome, Beside]:
        bench, nothing, scorer = self.job.bench, Beside({}, {}), cell.worker
        try:
            stream = self._stream(cell, seed)
            built: StreamScorer | Failure = bench.fitted(scorer)
            if isinstance(built, Failure):
                return built, nothing
            target = unlabelled(bench.decoder, stream.stream, self._features(cell, stream), seed=seed)
            with bench.clock.measure("score", scorer=scorer.label, on=cell.on):
                found = built.score_stream(target)
            _require_shapes(found, len(target))
        except Exception as error:  # a stranger's scorer may raise anything
            message = f"stream {seed}: {describe(error)}"
            logger.warning("%s, scorer %s on %s: %s", cell.model.label, scorer.label, cell.on, message)
            return Failure(message), nothing
        bench.clock.count(scorer.label, on=cell.on, forwards=found.forwards, backwards=found.backwards)
        sides = {name: _sides(scores, stream) for name, scores in found.variants.items()}
        beside = Beside(dict(found.facts), {name: measures.auroc(*pair) for name, pair in sides.items()})
        checked = checked_scores(found.scores.double())
        return (checked if isinstance(checked, Failure) else _sides(checked, stream)), beside

    def _features(self, cell: StreamCell, stream: OpenStream) -> FeatureSet:
        fields = cell.worker.needs & FEATURE_FIELDS - {"labels"}
        if not fields:
            return FeatureSet({"ids": np.arange(len(stream.stream))}, device=self.job.bench.loaded.device)
        return self.job.bench.features(stream.stream.name, stream.stream).only(fields | {"ids"})


def _require_shapes(found: object, length: int) -> None:
    if not isinstance(found, StreamScores):
        raise InputError(f"gave a {type(found).__name__}. Return harness.StreamScores")
    for name, scores in {"scores": found.scores, **found.variants}.items():
        if tuple(scores.shape) != (length,):
            raise InputError(f"{name} have shape {tuple(scores.shape)} where ({length},) is expected")


def _sides(scores: Tensor, stream: OpenStream) -> tuple[Tensor, Tensor]:
    import torch

    is_ood = torch.from_numpy(stream.is_ood).to(scores.device)
    return scores[~is_ood].double(), scores[is_ood].double()


def _mean(beside: list[Beside]) -> dict[str, Any]:
    """Average over streams what a scorer reported; nothing if it failed on one."""
    names = set.intersection(*(set(one.facts) for one in beside))
    variants = set.intersection(*(set(one.aurocs) for one in beside))
    return {
        "facts": {name: float(np.mean([one.facts[name] for one in beside])) for name in sorted(names)},
        "variants": {name: float(np.mean([one.aurocs[name] for one in beside])) for name in sorted(variants)},
    }
