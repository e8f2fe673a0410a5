"""Runs scorers over features, chunk by chunk. A scorer that fails does not stop the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.contract.specs import FEATURE_FIELDS
from harness.engine.guard import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from harness.contract.features import Features, FeatureSet
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
    with torch.no_grad():  # not inference mode: it keeps no versions, which reveal a change in place
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
                    failures[label] = Failure.of(error)
                if _versions(chunk) != before:
                    failures[label] = Failure(
                        "changed its features in place, but other scorers read them too. Copy them first"
                    )
                    chunk = features.take(read.ids.cpu().numpy())
    whole = {label: torch.cat(parts) for label, parts in scores.items() if label not in failures}
    return {**failures, **{label: checked_scores(value) for label, value in whole.items()}}


def checked_scores(scores: Tensor) -> Tensor | Failure:
    """Return the scores, or a failure if some are NaN: NaN has no rank, infinities have one."""
    import torch

    count = int(torch.isnan(scores).sum())
    if count:
        return Failure(f"NaN for {count} of {len(scores)} samples. A score must be a number or ±inf")
    return scores


def _versions(chunk: Features) -> list[int]:
    """Count how often each of the chunk's tensors was written to."""
    layers = chunk.layers.values() if "layers" in chunk.fields else ()
    tensors = [getattr(chunk, name) for name in sorted(chunk.fields - {"layers"})]
    return [tensor._version for tensor in (*tensors, *layers)]


def _score_chunk(planned: Planned, scorer: Scorer, chunk: Features) -> Tensor:
    import torch

    allowed = (planned.needs & FEATURE_FIELDS) - {"labels"} | {"ids"}  # labels are for fitting only
    scores = scorer.score(chunk.only(allowed))
    if not isinstance(scores, torch.Tensor):
        raise InputError(f"scores are a {type(scores).__name__}. Give a tensor with one score per sample")
    if scores.is_complex():
        raise InputError("scores are complex, which have no order. Give real scores")
    shape = tuple(scores.shape)
    if shape != (len(chunk),):
        raise InputError(f"scores have shape {shape}, expected ({len(chunk)},). Give one score per sample")
    return scores.double()
