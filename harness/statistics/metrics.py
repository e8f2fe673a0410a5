"""Metrics: how well scores separate ID from OOD, and the accuracy and calibration of a classifier.

Higher scores mean more OOD. Scores are numpy arrays or torch tensors of integers or floats. Everything is computed in
float64 on their device. Ties are grouped, infinities are ordered, and NaN raises InputError. The metrics of a pair of
ID and OOD scores are kernels of one Ranking, so that computing all of them sorts each side once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError
from harness.statistics.ranking import (
    Ranking,
    accepting_rank,
    as_tensor,
    check_not_nan,
    check_one_device,
    share_of_pairs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    Scores = NDArray[Any] | Tensor

ROWS_AT_ONCE = 4096  # rows of logits that are converted to float64 at once


def auroc(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute P(ood > id) + ½ P(ood = id), the area under the ROC curve.

    Scores (m,) and (n,); higher is better. Raises InputError for NaN, an empty side, a wrong shape and two devices, as
    every metric of a pair does. Hanley & McNeil (Radiology 1982): the Wilcoxon statistic.
    """
    return float(_auroc(Ranking.of(id_scores, ood_scores)))


def fpr95_id(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute the share of OOD accepted at the lowest threshold that accepts at least 95 % of ID.

    ID is the positive class; a sample is accepted if its score is at most the threshold. Lower is better.
    """
    return float(_fpr95_id(Ranking.of(id_scores, ood_scores)))


def fpr95_ood(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute the share of ID flagged at the highest threshold that flags at least 95 % of OOD.

    OOD is the positive class; a sample is flagged if its score is at least the threshold. Lower is better.
    """
    return float(_fpr95_ood(Ranking.of(id_scores, ood_scores)))


def tnr95_id(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute the share of OOD rejected at the lowest threshold that accepts at least 95 % of ID.

    1 - fpr95_id: the TNR at 95 % TPR of the IsoMax papers (Macêdo et al., IJCNN 2021). Higher is better.
    """
    return float(_tnr95_id(Ranking.of(id_scores, ood_scores)))


def dtacc(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute detection accuracy: the mean of ID's accepted and OOD's rejected share, at the best threshold.

    Both sides have equal weight, whatever their sizes. Thresholds that accept all or nothing count too, so it is ½ or
    more. Higher is better. Lee et al. (NeurIPS 2018); Liang et al. (ICLR 2018) report the detection error, 1 minus it.
    """
    return float(_dtacc(Ranking.of(id_scores, ood_scores)))


def aupr_in(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute the area under precision-recall by the trapezoidal rule, with ID positive, ranked by low score.

    The curve has one point per distinct score and begins at (recall 0, precision 1). Straight lines between points give
    values that are too high with ties (Davis & Goadrich, ICML 2006): see ap_in. Higher is better.
    """
    return float(_aupr_in(Ranking.of(id_scores, ood_scores)))


def aupr_out(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute the trapezoidal area under precision-recall, with OOD positive, ranked by high score; see aupr_in."""
    return float(_aupr_out(Ranking.of(id_scores, ood_scores)))


def ap_in(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute average precision, the area under precision-recall in steps, with ID positive, ranked by low score.

    It is the mean over ID samples of the precision at that sample's score. Higher is better.
    """
    return float(_ap_in(Ranking.of(id_scores, ood_scores)))


def ap_out(id_scores: Scores, ood_scores: Scores) -> float:
    """Compute average precision, with OOD positive, ranked by high score; see ap_in."""
    return float(_ap_out(Ranking.of(id_scores, ood_scores)))


def all_metrics(id_scores: Scores, ood_scores: Scores) -> dict[str, float]:
    """Compute all METRICS with one sort per side and one transfer from the device.

    Scores (m,) and (n,); the result has the names and the order of METRICS. Raises InputError as auroc does.
    """
    import torch

    ranking = Ranking.of(id_scores, ood_scores)
    values = torch.stack([metric.kernel(ranking) for metric in METRICS.values()]).tolist()
    return dict(zip(METRICS, values, strict=True))


def accuracy(logits: Scores, labels: Scores) -> float:
    """Compute the share of samples whose largest logit is that of their label.

    Logits (N, C), integer labels (N,) in 0..C-1. Raises InputError for NaN, wrong shapes, labels and devices.
    """
    return float(_correct(*_read_logits(logits, labels)).double().mean())


def ece(logits: Scores, labels: Scores, bins: int = 15) -> float:
    """Compute the expected calibration error over equal-width bins of the largest softmax probability.

    The sum over bins of |accuracy - mean confidence|, weighted by the bin's share of samples; bin b holds confidences
    in (b / bins, (b + 1) / bins]. Logits (N, C), integer labels (N,); lower is better. Raises InputError as accuracy
    does, and for infinite confidence and bins < 1. Guo et al. (ICML 2017), eq. 3.
    """
    import torch

    if bins < 1:
        raise InputError(f"bins is {bins}; valid: 1 or more. 15 is the usual number")
    logits, labels = _read_logits(logits, labels)
    confidence = torch.cat(
        [rows.double().softmax(dim=1).amax(dim=1) for rows in torch.split(logits, ROWS_AT_ONCE)]
    )
    check_not_nan(confidence, "softmax(logits)")
    return calibration_error(confidence, _correct(logits, labels), bins)


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """Compute ece from each sample's confidence (N,) in 0..1 and whether its prediction is correct (N,)."""
    import torch

    edges = torch.arange(1, bins, dtype=torch.float64, device=confidence.device) / bins
    gaps = correct.double() - confidence
    member = torch.bucketize(confidence, edges) == torch.arange(bins, device=confidence.device)[:, None]
    # A matrix product sums in a fixed order on every device; scattered additions do not.
    return float((member.double() @ gaps).abs().sum() / len(gaps))


def _read_logits(logits: Scores, labels: Scores) -> tuple[Tensor, Tensor]:
    scores, classes = as_tensor(logits, "logits"), as_tensor(labels, "labels")
    if scores.ndim != 2 or not scores.numel():
        raise InputError(f"logits has shape {tuple(scores.shape)}; valid: (N, C), one row per sample")
    if classes.shape != scores.shape[:1]:
        raise InputError(
            f"labels has shape {tuple(classes.shape)}; valid: ({len(scores)},), one label per row of logits"
        )
    check_one_device(logits=scores, labels=classes)
    check_not_nan(scores, "logits")
    if classes.is_floating_point() or not bool(((classes >= 0) & (classes < scores.shape[1])).all()):
        raise InputError(f"labels must be integers in 0..{scores.shape[1] - 1}, the columns of logits")
    return scores, classes


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(dim=1) == labels


def _auroc(ranking: Ranking) -> Tensor:
    at_ood = ranking.ood_counts
    return share_of_pairs(at_ood.id_below + at_ood.id_at_most, len(ranking.ids))


def _fpr95_id(ranking: Ranking) -> Tensor:
    threshold = ranking.ids[accepting_rank(len(ranking.ids)) - 1]
    return (ranking.oods <= threshold).double().mean()


def _fpr95_ood(ranking: Ranking) -> Tensor:
    threshold = ranking.oods[-accepting_rank(len(ranking.oods))]
    return (ranking.ids >= threshold).double().mean()


def _tnr95_id(ranking: Ranking) -> Tensor:
    return 1 - _fpr95_id(ranking)


def _dtacc(ranking: Ranking) -> Tensor:
    """Use only the ID scores as thresholds: a threshold between two of them accepts more OOD but no more ID.

    The last one accepts all of ID and so gives ½ or more; accepting nothing gives exactly ½. All sums are of integers,
    so that only the final division rounds.
    """
    at_id, m, n = ranking.id_counts, len(ranking.ids), len(ranking.oods)
    pairs = at_id.id_at_most * n + (n - at_id.ood_at_most) * m
    return pairs.max().double() / (2 * m * n)


def _precisions_in(ranking: Ranking) -> tuple[Tensor, Tensor]:
    """Return the precision at each ID sample's score, and at the previous point of the curve; (m,) each."""
    at_id = ranking.id_counts
    return _precision(at_id.id_at_most, at_id.ood_at_most), _precision(at_id.id_below, at_id.ood_below)


def _precisions_out(ranking: Ranking) -> tuple[Tensor, Tensor]:
    """Return the precision at each OOD sample's score, and at the previous point of the curve; (n,) each."""
    at_ood, m, n = ranking.ood_counts, len(ranking.ids), len(ranking.oods)
    before = _precision(n - at_ood.ood_at_most, m - at_ood.id_at_most)
    return _precision(n - at_ood.ood_below, m - at_ood.id_below), before


def _precision(hits: Tensor, false_alarms: Tensor) -> Tensor:
    """Divide hits by all samples taken; 1 if none is taken, the start of the curve."""
    taken = hits + false_alarms
    return (hits.double() / taken).masked_fill(taken == 0, 1.0)


def _trapezoid(precisions: tuple[Tensor, Tensor]) -> Tensor:
    """Average the precision at both ends of the step in recall that each positive sample adds."""
    at_sample, before = precisions
    return (at_sample.mean() + before.mean()) / 2


def _aupr_in(ranking: Ranking) -> Tensor:
    return _trapezoid(_precisions_in(ranking))


def _aupr_out(ranking: Ranking) -> Tensor:
    return _trapezoid(_precisions_out(ranking))


def _ap_in(ranking: Ranking) -> Tensor:
    return _precisions_in(ranking)[0].mean()


def _ap_out(ranking: Ranking) -> Tensor:
    return _precisions_out(ranking)[0].mean()


@dataclass(frozen=True)
class Metric:
    """A metric of a pair of ID and OOD scores: its function, kernel, column header and direction."""

    function: Callable[[Scores, Scores], float]
    kernel: Callable[[Ranking], Tensor]
    header: str
    higher_is_better: bool


METRICS: dict[str, Metric] = {
    "auroc": Metric(auroc, _auroc, "AUROC", higher_is_better=True),
    "fpr95_id": Metric(fpr95_id, _fpr95_id, "FPR95 (ID pos.)", higher_is_better=False),
    "fpr95_ood": Metric(fpr95_ood, _fpr95_ood, "FPR95 (OOD pos.)", higher_is_better=False),
    "tnr95_id": Metric(tnr95_id, _tnr95_id, "TNR95 (ID pos.)", higher_is_better=True),
    "dtacc": Metric(dtacc, _dtacc, "DTACC", higher_is_better=True),
    "aupr_in": Metric(aupr_in, _aupr_in, "AUPR-in", higher_is_better=True),
    "aupr_out": Metric(aupr_out, _aupr_out, "AUPR-out", higher_is_better=True),
    "ap_in": Metric(ap_in, _ap_in, "AP-in", higher_is_better=True),
    "ap_out": Metric(ap_out, _ap_out, "AP-out", higher_is_better=True),
}
