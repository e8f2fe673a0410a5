"""Fits scorers and runs them over features, each isolated from the others' failures."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError, InputError
from harness.base.memory import peak_memory
from harness.contract.features import FitData
from harness.contract.specs import FEATURE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from harness.contract.features import Features, FeatureSet
    from harness.contract.protocols import AnyScorer, Estimator, Scorer
    from harness.engine.plan import PlannedEstimator, PlannedScorer
    from harness.models.loaded import LoadedModel

_NEVER_SCORED_ON = frozenset({"labels"})  # labels are for fitting
_IDENTITY = frozenset({"ids"})


@dataclass(frozen=True)
class Failure:
    """Why something could not be computed, in one line."""

    message: str


@dataclass
class Clock:
    """Seconds, memory, forwards and backwards by what they were spent on."""

    device: str = "cpu"
    seconds: dict[tuple[str, str, str], float] = field(default_factory=dict)  # (stage, scorer, set)
    passes: dict[tuple[str, str, str], tuple[int, int]] = field(
        default_factory=dict
    )  # images forwards, backwards

    peaks: dict[tuple[str, str, str], int] = field(default_factory=dict)  # bytes

    @contextmanager
    def measure_with_memory(self, stage: str, *, scorer: str = "", on: str = "") -> Iterator[None]:
        """Add the time of the block, and keep its peak of memory where that is higher than an earlier block's."""
        key = (stage, scorer, on)
        with self.measure(stage, scorer=scorer, on=on), peak_memory(self.device) as peak:
            yield
        if peak.bytes is not None:
            self.peaks[key] = max(self.peaks.get(key, 0), peak.bytes)

    @contextmanager
    def measure(self, stage: str, *, scorer: str = "", on: str = "") -> Iterator[None]:
        """Add the time of the block, with the device's queue emptied at its end."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.startswith("cuda"):
                import torch

                torch.cuda.synchronize(self.device)
            key = (stage, scorer, on)
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start

    def count(self, scorer: str, *, on: str, forwards: int, backwards: int) -> None:
        """Note how many images a scorer sent forwards and backwards through the model on a set."""
        self.passes["extract", scorer, on] = forwards, backwards

    def lines(self, **of: object) -> list[dict[str, object]]:
        """List what was measured, for timings.jsonl."""
        keys = dict.fromkeys([*self.seconds, *self.passes])
        return [{**of, "stage": stage, "scorer": scorer, "set": name, **self._measured((stage, scorer, name))}
                for stage, scorer, name in keys]  # fmt: skip

    def _measured(self, key: tuple[str, str, str]) -> dict[str, object]:
        measured: dict[str, object] = {"seconds": round(self.seconds[key], 6)} if key in self.seconds else {}
        if key in self.passes:
            measured["forwards"], measured["backwards"] = self.passes[key]
        if key in self.peaks:
            measured["peak_bytes"] = self.peaks[key]
        return measured


def describe(error: Exception) -> str:
    """Say what went wrong in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, HarnessError) else f"{type(error).__name__}: {text}"


def fit_scorer(
    planned: PlannedScorer,
    model: LoadedModel,
    train: FeatureSet | None,
    validation: FeatureSet | None,
    clock: Clock,
) -> AnyScorer | Failure:
    """Build a scorer and fit it on what its spec declares, and on nothing else."""
    needs = planned.needs
    fields = (needs & FEATURE_FIELDS) | _IDENTITY
    try:
        with clock.measure("fit", scorer=planned.label):
            built: Any = planned.offered.spec.build(**planned.params)
            if not hasattr(built, "fit"):
                return built  # type: ignore[no-any-return]
            data = FitData(
                train=train.only(fields) if train is not None and "train" in needs else None,
                validation=validation.only(fields)
                if validation is not None and "validation" in needs
                else None,
                head=model.head if needs & {"head", "linear"} else None,
            )
            fitted: AnyScorer = built.fit(data)
            return fitted
    except Exception as error:  # a stranger's scorer may raise anything
        return Failure(f"fit: {describe(error)}")


def fit_estimator(
    planned: PlannedEstimator, model: LoadedModel, validation: FeatureSet | Failure | None, clock: Clock
) -> Estimator | Failure:
    """Build an estimator and fit it on what its spec declares: ID validation with its labels, and the head."""
    needs = planned.needs
    try:
        with clock.measure("fit", scorer=planned.label):
            built: Any = planned.offered.spec.build(**planned.params)
            if not hasattr(built, "fit"):
                return built  # type: ignore[no-any-return]
            if isinstance(validation, Failure) and "validation" in needs:
                return Failure(f"ID validation: {validation.message}")
            given = validation if "validation" in needs and not isinstance(validation, Failure) else None
            fields = (needs & FEATURE_FIELDS) | {"labels"} | _IDENTITY
            fitted: Estimator = built.fit(
                FitData(
                    validation=given.only(fields) if given is not None else None,
                    head=model.head if needs & {"head", "linear"} else None,
                )
            )
            return fitted
    except Exception as error:  # a stranger's estimator may raise anything
        return Failure(f"fit: {describe(error)}")


def score_features(
    scorers: Mapping[str, tuple[PlannedScorer, Scorer]], features: FeatureSet, clock: Clock, *, on: str
) -> dict[str, Tensor | Failure]:
    """Score a set with every scorer, chunk by chunk: each chunk is read and moved once for all of them.

    Returns:
        By scorer, float64 scores (N,) on the features' device, or what went wrong.

    """
    import torch

    scores: dict[str, list[Tensor]] = {label: [] for label in scorers}
    failures: dict[str, Failure] = {}
    with torch.no_grad():  # inference mode keeps no versions, by which a change in place is noticed
        for read in features.chunks():
            chunk = read
            for label, (planned, scorer) in scorers.items():
                if label in failures:
                    continue
                before = _versions(chunk)
                try:
                    with clock.measure("score", scorer=label, on=on):
                        scores[label].append(_score_chunk(planned, scorer, chunk))
                except Exception as error:  # a stranger's scorer may raise anything
                    failures[label] = Failure(describe(error))
                if _versions(chunk) != before:
                    failures[label] = Failure(
                        "changed its features in place, which others read too. Copy them first"
                    )
                    chunk = features.take(read.ids.cpu().numpy())
    whole = {label: torch.cat(parts) for label, parts in scores.items() if label not in failures}
    return {**failures, **{label: checked_scores(value) for label, value in whole.items()}}


def checked_scores(scores: Tensor) -> Tensor | Failure:
    """Refuse NaN, which has no rank; infinities have one."""
    import torch

    count = int(torch.isnan(scores).sum())
    return (
        Failure(f"NaN for {count} of {len(scores)} samples. A score must be a number or ±inf")
        if count
        else scores
    )


def _versions(chunk: Features) -> list[int]:
    """Count how often each of the chunk's tensors was written to."""
    layers = chunk.layers.values() if "layers" in chunk.fields else ()
    tensors = [getattr(chunk, name) for name in sorted(chunk.fields - {"layers"})]
    return [tensor._version for tensor in (*tensors, *layers)]


def _score_chunk(planned: PlannedScorer, scorer: Scorer, chunk: Features) -> Tensor:
    allowed = ((planned.needs & FEATURE_FIELDS) - _NEVER_SCORED_ON) | _IDENTITY
    import torch

    scores = scorer.score(chunk.only(allowed))
    if not isinstance(scores, torch.Tensor):
        raise InputError(f"scores are a {type(scores).__name__}. Give a tensor, one score a sample")
    shape = tuple(scores.shape)
    if shape != (len(chunk),):
        raise InputError(
            f"scores have shape {shape} where ({len(chunk)},) is expected. Give one score a sample"
        )
    return scores.double()
