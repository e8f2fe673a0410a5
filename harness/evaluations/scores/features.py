"""Runs scorers over features, chunk by chunk. A scorer that fails does not stop the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.strangers import RAISED, undisturbed
from harness.contract.features import Features
from harness.contract.scores import as_scores
from harness.contract.specs import FEATURE_FIELDS
from harness.engine.guard import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from harness.contract.features import FeatureSet
    from harness.contract.protocols import Scorer
    from harness.engine.clock import Clock
    from harness.engine.plan import Planned


def score_features(
    scorers: Mapping[str, tuple[Planned, Scorer]], features: FeatureSet, clock: Clock, *, on: str
) -> dict[str, Tensor | Failure]:
    """Score a set with every scorer, chunk by chunk: each chunk is read and moved once for all of them.

    Returns:
        By scorer, float64 scores (N,) on the features' device, or the failure.

    """
    import torch

    scores: dict[str, list[Tensor]] = {label: [] for label in scorers}
    failures: dict[str, Failure] = {}
    with torch.no_grad():
        for chunk in features.chunks():
            for label, (planned, scorer) in scorers.items():
                if label in failures:
                    continue
                try:
                    with undisturbed(str(chunk.ids.device)), clock.measure("score", scorer=label, on=on):
                        scores[label].append(_score_chunk(planned, scorer, chunk))
                except RAISED as error:
                    failures[label] = Failure.of(error)
    whole = {label: torch.cat(parts) for label, parts in scores.items() if label not in failures}
    return {**failures, **{label: checked_scores(value) for label, value in whole.items()}}


def checked_scores(scores: Tensor) -> Tensor | Failure:
    """Return the scores, or a failure if some are NaN: NaN has no rank, infinities have one."""
    import torch

    count = int(torch.isnan(scores).sum())
    if count:
        return Failure(f"NaN for {count} of {len(scores)} samples. A score must be a number or ±inf")
    return scores


def _own_copy(chunk: Features, fields: frozenset[str]) -> Features:
    """Copy the named fields, so that a scorer that writes into them changes nothing for the others."""
    flat = {name: getattr(chunk, name).clone() for name in chunk.fields & fields - {"layers"}}
    layers = chunk.layers if "layers" in chunk.fields & fields else None
    return Features(**flat, layers=layers and {name: layer.clone() for name, layer in layers.items()})


def _score_chunk(planned: Planned, scorer: Scorer, chunk: Features) -> Tensor:
    allowed = (planned.needs & FEATURE_FIELDS) - {"labels"} | {"ids"}  # labels are for fitting only
    return as_scores(scorer.score(_own_copy(chunk, allowed)), len(chunk), device=str(chunk.ids.device))
