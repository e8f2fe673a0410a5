"""From per-sample scores to metrics with intervals, and to the covariances from which ranks are computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.digests import array_digest, digest
from harness.base.errors import HarnessError
from harness.data.sets import CSID, SetEntry
from harness.engine.evaluation import Measured
from harness.engine.guard import Failure
from harness.reports.record import SATURATED
from harness.statistics import inference, intervals, metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.features import FeatureSet

    Outcome = tuple[Tensor, Tensor] | Failure  # scores of ID and of OOD

MetricValue = dict[str, float | None]
METRICS = list(metrics.METRICS)  # in the keys of scores: a new metric is measured on old cells, too
RANKED_GROUPS = ("near", "far")
BY_STREAM = ("auroc", "fpr95_id", "fpr95_ood")
SATURATED_FROM = 0.999
ALL = "all"  # the mean of the near mean and the far mean


def cell_metrics(id_scores: Tensor, ood_scores: Tensor) -> dict[str, MetricValue]:
    """Compute every metric of one cell, with 95 % intervals for AUROC (DeLong, logit scale), both FPR95 and TNR95."""
    values = metrics.all_metrics(id_scores, ood_scores)
    result: dict[str, MetricValue] = {
        name: {"value": value, "lo": None, "hi": None} for name, value in values.items()
    }
    placements = inference.placements(id_scores, ood_scores)
    variance = float(placements.covariance()[0, 0])
    bounds = {
        "auroc": intervals.logit_interval(values["auroc"], variance, len(id_scores), len(ood_scores)),
        "fpr95_id": intervals.fpr95_interval(id_scores, ood_scores, positive="id"),
        "fpr95_ood": intervals.fpr95_interval(id_scores, ood_scores, positive="ood"),
    }
    accepted_low, accepted_high = bounds["fpr95_id"]
    bounds["tnr95_id"] = 1 - accepted_high, 1 - accepted_low
    for name, (low, high) in bounds.items():
        result[name] = {"value": values[name], "lo": low, "hi": high}
    return result


def stream_metrics(
    pairs: Sequence[tuple[Tensor, Tensor]],
) -> tuple[dict[str, MetricValue], dict[str, list[float]]]:
    """Compute every metric's mean over streams with Student's 95 % interval, and the main ones stream by stream.

    DeLong's interval would assume independent samples; the samples of a stream that a model adapts to are not.

    Args:
        pairs: ID and OOD scores of each stream, (m,) and (n,). A single stream gives no interval.

    """
    measured = [metrics.all_metrics(id_scores, ood_scores) for id_scores, ood_scores in pairs]
    found: dict[str, MetricValue] = {}
    for name in measured[0]:
        summary = intervals.seed_interval([values[name] for values in measured])
        low, high = summary.interval or (None, None)
        found[name] = {"value": summary.mean, "lo": low, "hi": high}
    return found, {name: [values[name] for values in measured] for name in BY_STREAM}


def of_streams(outcomes: Sequence[Outcome]) -> Measured | Failure:
    """Compute the result of a cell from the scores of several streams; the first failure, if there is one."""
    pairs = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            return outcome
        pairs.append(outcome)
    try:
        found, by_stream = stream_metrics(pairs)
    except HarnessError as error:
        return Failure(str(error))
    sides = {
        side: digest([array_digest(pair[place].cpu().numpy()) for pair in pairs])
        for place, side in enumerate(("id", "ood"))
    }
    return Measured(
        {
            "metrics": found,
            "by_stream": by_stream,
            "scores": sides,
            "n_id": len(pairs[0][0]),
            "n_ood": len(pairs[0][1]),
            "flags": flags(found),
        }
    )


def flags(found: Mapping[str, MetricValue]) -> list[str]:
    """Flag an AUROC so near 0 or 1 that its interval is of little use."""
    auroc = found["auroc"]["value"]
    assert auroc is not None
    return [SATURATED] if max(auroc, 1 - auroc) >= SATURATED_FROM else []


def likeliest(logits: Tensor, among: NDArray[np.int64] | None) -> tuple[Tensor, Tensor]:
    """Return the softmax of the likeliest class and the class, (N,) each, of all (N, C) or among the given ones."""
    import torch

    if among is None:
        confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
        return confidence, predicted
    classes = torch.as_tensor(among, device=logits.device)
    confidence, place = logits[:, classes].double().softmax(dim=1).max(dim=1)
    return confidence, classes[place]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts for a labelled set."""

    confidence: Tensor  # softmax of the predicted class, (N,)
    predicted: Tensor  # (N,)
    labels: Tensor  # (N,)

    @classmethod
    def of(cls, features: FeatureSet, *, among: NDArray[np.int64] | None = None) -> Predictions:
        """Predict from logits in one pass. `among` are the classes that compete; None: all outputs."""
        import torch

        found = [(*likeliest(chunk.logits, among), chunk.labels) for chunk in features.chunks()]
        return cls(*(torch.cat(column) for column in zip(*found, strict=True)))

    def metrics(self) -> dict[str, MetricValue]:
        """Compute accuracy, with its Wilson interval, and calibration error."""
        correct = self.predicted == self.labels
        accuracy = float(correct.double().mean())
        low, high = intervals.wilson_interval(accuracy, len(correct))
        error = metrics.calibration_error(self.confidence, correct)
        return {
            "accuracy": {"value": accuracy, "lo": low, "hi": high},
            "ece": {"value": error if math.isfinite(error) else None, "lo": None, "hi": None},
        }


def model_accuracy(features: FeatureSet, *, among: NDArray[np.int64] | None = None) -> MetricValue:
    """Compute a model's accuracy on a labelled set, with its Wilson interval."""
    return Predictions.of(features, among=among).metrics()["accuracy"]


def group_weights(sets: Sequence[SetEntry]) -> dict[str, dict[str, float]]:
    """Weight the sets of each group mean: {group: {set: weight}}; `all` is the mean of the near and far means."""
    members: dict[str, list[str]] = {}
    for entry in sets:
        members.setdefault(entry.group, []).append(entry.name)
    weights = {group: dict.fromkeys(names, 1 / len(names)) for group, names in members.items()}
    ranked = [weights[group] for group in RANKED_GROUPS if group in weights]
    if ranked:
        weights[ALL] = {name: weight / len(ranked) for group in ranked for name, weight in group.items()}
    return weights


def paired_blocks(
    id_scores: Mapping[str, Tensor], ood_scores: Mapping[str, Mapping[str, Tensor]], sets: Sequence[SetEntry]
) -> list[dict[str, Any]]:
    """Estimate every group mean's AUROC and its covariance between scorers, all sets sharing the ID samples.

    Args:
        id_scores: by scorer, (m,).
        ood_scores: by set and scorer, (n_k,).
        sets: the suite's sets. A scorer without scores for one of a group's sets is left out of that group.

    """
    blocks = []
    for group, weights in group_weights(sets).items():
        # Sorted, so that neither a stopped run nor the order of runs into one folder moves a bit.
        scorers = sorted(s for s in id_scores if all(s in ood_scores.get(name, {}) for name in weights))
        if not scorers:
            continue
        try:
            mean = _group_mean(scorers, weights, id_scores, ood_scores)
        except HarnessError:  # too few samples for a covariance; the cells' own records have the error
            continue
        blocks.append(
            {
                "group": group,
                "ranked": group != CSID,
                "sets": list(weights),
                "scorers": scorers,
                "auroc": mean.auroc.tolist(),
                "covariance": mean.covariance.tolist(),
                "n_id": mean.n_id,
                "n_ood": mean.n_ood_effective,
            }
        )
    return blocks


def _group_mean(
    scorers: Sequence[str],
    weights: Mapping[str, float],
    id_scores: Mapping[str, Tensor],
    ood_scores: Mapping[str, Mapping[str, Tensor]],
) -> inference.MeanEstimate:
    import torch

    shared = torch.stack([id_scores[label] for label in scorers])  # (S, m)
    accumulator = inference.MeanAccumulator()
    for name, weight in weights.items():
        of_set = torch.stack([ood_scores[name][label] for label in scorers])  # (S, n)
        accumulator.add(inference.placements(shared, of_set), weight)
    return accumulator.estimate()
