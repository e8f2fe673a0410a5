"""Confidence intervals of AUROC, FPR95, shares, rank correlations and means over seeds.

All are analytic, without resampling. Shapes: m ID samples, n OOD samples, R seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.base.errors import InputError
from harness.statistics.ranking import accepting_rank, count_at_most, read_pair, sort_scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Scores = NDArray[Any] | Tensor

Interval = tuple[float, float]
HALVINGS = 64  # of an interval inside 0..1, down to float64 precision


def logit_interval(
    auroc: float, variance: float, n_id: float, n_ood: float, confidence: float = 0.95
) -> Interval:
    """Compute the confidence interval of an AUROC from its DeLong variance, normal on the logit scale.

    logit(A) ± z sqrt(V) / (A (1 - A)), mapped back: it lies inside 0..1 and is wider towards ½. n_id and n_ood are
    numbers of samples; for a mean over OOD sets they are MeanEstimate's n_id and n_ood_effective.

    An AUROC of exactly 0 or 1 has variance 0 and no logit. Its interval is method 5 of Newcombe (Statistics in Medicine
    25, 2006, part 2): the roots t of

        (A - t)² = z² t (1 - t) / (mn) · [2N - 1 - (3N - 3) / ((2 - t)(1 + t))],   N = (m + n) / 2.

    For an AUROC strictly between 0 and 1, the variance of one set is 0 only if all scores are equal; the variance of a
    mean is 0 only if in each set all scores are equal or separation is perfect. The data then contain no information
    on the spread, and an interval of width 0 would be wrong. So method 5 is used too: it needs only A, m and n.

    Raises InputError for an AUROC outside 0..1, a variance that is negative or not finite, and no samples.
    """
    _check_auroc(auroc, variance, n_id, n_ood)
    z = _normal_quantile(confidence)
    if variance == 0 or auroc in (0, 1):
        lower = _newcombe_lower(auroc, z, n_id, n_ood)
        return lower, 1 - _newcombe_lower(1 - auroc, z, n_id, n_ood)
    from scipy.special import expit, logit

    centre, reach = logit(auroc), z * math.sqrt(variance) / (auroc * (1 - auroc))
    return float(expit(centre - reach)), float(expit(centre + reach))


def _check_auroc(auroc: float, variance: float, n_id: float, n_ood: float) -> None:
    if not 0 <= auroc <= 1:
        raise InputError(f"auroc is {auroc}; valid: 0..1")
    if not 0 <= variance < math.inf:
        raise InputError(f"variance is {variance}; valid: 0 or more, and finite")
    if not (n_id >= 1 and n_ood >= 1):
        raise InputError(f"n_id is {n_id} and n_ood is {n_ood}; valid: 1 or more each")


def _normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - _tail(confidence)))


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; valid: between 0 and 1, such as 0.95")
    return (1 - confidence) / 2


def _newcombe_lower(auroc: float, z: float, n_id: float, n_ood: float) -> float:
    """Find the root of Newcombe's method 5 below the AUROC by bisection; the upper root follows by symmetry."""
    twice_n = n_id + n_ood
    below, above = 0.0, auroc
    for _ in range(HALVINGS):
        t = (below + above) / 2
        spread = twice_n - 1 - (1.5 * twice_n - 3) / ((2 - t) * (1 + t))
        if (auroc - t) ** 2 > z**2 * t * (1 - t) / (n_id * n_ood) * spread:
            below = t
        else:
            above = t
    return float(below)


@dataclass(frozen=True)
class SeedSummary:
    """The mean over seeds, the standard deviation (ddof 1) and the mean's interval; None if undefined."""

    mean: float
    sd: float | None
    interval: Interval | None


def seed_interval(
    values: ArrayLike, confidence: float = 0.95, *, bounds: Interval = (0.0, 1.0)
) -> SeedSummary:
    """Compute the mean of a metric over R seeds and its Student's t interval, clipped to bounds.

    mean ± t sd / sqrt(R), values (R,), df = R - 1. One seed has neither standard deviation nor interval. The default
    bounds are for a share; differences of shares need (-1, 1). Raises InputError for no seeds, a wrong shape and NaN.
    """
    from scipy.special import stdtrit

    runs = np.asarray(values, dtype=np.float64)
    if runs.ndim != 1 or not runs.size or np.isnan(runs).any():
        raise InputError(f"values is {runs.tolist()}; valid: one number for each seed, and at least one")
    tail, mean, seeds = _tail(confidence), float(runs.mean()), len(runs)
    if seeds == 1:
        return SeedSummary(mean, None, None)
    sd = float(runs.std(ddof=1))
    reach = float(stdtrit(seeds - 1, 1 - tail)) * sd / math.sqrt(seeds)
    return SeedSummary(mean, sd, (max(mean - reach, bounds[0]), min(mean + reach, bounds[1])))


def fpr95_interval(
    id_scores: Scores,
    ood_scores: Scores,
    *,
    positive: Literal["id", "ood"] = "id",
    confidence: float = 0.95,
) -> Interval:
    """Compute the confidence interval of an FPR95, including the error of its estimated threshold.

    Scores (m,) and (n,), higher = more OOD; `positive` selects the convention of metrics.fpr95_id or fpr95_ood. Two
    asymmetric errors are combined. One is the error of the share at a fixed threshold (Wilson, JASA 1927). The other is
    the error of the threshold: the share is also computed at two order statistics of the positive side, whose ranks
    enclose the 95 % quantile with the given confidence for any distribution. MOVER (Zou & Donner, Statistics in
    Medicine 2008) adds the squares of the two distances from the estimate.

    Ranks are real numbers, beta quantiles of uniform order statistics, and the share is interpolated between integer
    ranks: ranks rounded outwards give intervals that are too wide below a thousand samples. Beyond the largest sample
    the share is 1, so with fewer than about 72 positive samples the upper limit is 1. If positive scores tie near the
    quantile, the threshold moves in jumps that do not average out, and the sum of squares is too small. So the
    distances are added with a correlation: the share of tied neighbours (MOVER for correlated estimates, Zou,
    Psychological Methods 2007).

    In simulations of normal scores with small or perfect separation, coverage is nominal or a few points above it, most
    at a hundred samples; with rounded scores it is slightly too low in the worst case. Like Wilson's interval, it
    covers too little if the true share is within about 1 / n of 0 or 1.

    Raises InputError as metrics.fpr95_id does, and for another `positive` and confidence outside 0..1.
    """
    if positive not in ("id", "ood"):
        raise InputError(f"positive is {positive!r}; valid: 'id', 'ood'")
    ids, oods = read_pair(id_scores, ood_scores)
    kept, other = (ids, oods) if positive == "id" else (-oods, -ids)
    lowest, highest = _rank_range(len(kept), confidence)
    (least, share, most), tied = _shares(sort_scores(kept)[0], sort_scores(other)[0], lowest, highest)
    wilson_lower, wilson_upper = wilson_interval(share, len(other), confidence)
    return (
        max(share - _add(share - wilson_lower, share - least, tied), 0.0),
        min(share + _add(wilson_upper - share, most - share, tied), 1.0),
    )


def _add(first: float, second: float, correlation: float) -> float:
    return math.sqrt(first**2 + second**2 + 2 * correlation * first * second)


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> Interval:
    """Compute the score interval of a share of count samples; it always contains the share. Wilson (JASA 1927)."""
    z = _normal_quantile(confidence)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return min(centre - reach, share), max(centre + reach, share)


def normal_interval(
    value: float, standard_error: float | None, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Return value ± z standard errors; (None, None) for an exact value, which has no standard error."""
    if standard_error is None:
        return None, None
    reach = _normal_quantile(confidence) * standard_error
    return value - reach, value + reach


def correlation_interval(correlation: float, count: int, confidence: float = 0.95) -> Interval | None:
    """Compute the interval of Pearson's correlation of count pairs on Fisher's scale: standard error 1 / √(n - 3).

    It holds for pairs from a bivariate normal distribution. At ±1 its width is 0. None below 4 pairs.
    """
    if count < 4:
        return None
    if abs(correlation) >= 1:
        return correlation, correlation
    centre, reach = math.atanh(correlation), _normal_quantile(confidence) / math.sqrt(count - 3)
    return math.tanh(centre - reach), math.tanh(centre + reach)


def rank_correlation_interval(correlation: float, count: int, confidence: float = 0.95) -> Interval | None:
    """Compute the interval of Spearman's correlation of count pairs on Fisher's scale.

    The standard error is √((1 + ρ²/2) / (n - 3)) (Bonett & Wright, Psychometrika 2000). At ±1 the scale is infinite:
    then the interval is that of the correlation half a swap of neighbours away, extended to ±1. None below 4 pairs.
    """
    if count < 4:
        return None
    half_a_swap = 6 / (count * (count**2 - 1))
    inner = math.copysign(min(abs(correlation), 1 - half_a_swap), correlation)
    reach = _normal_quantile(confidence) * math.sqrt((1 + inner**2 / 2) / (count - 3))
    low, high = math.tanh(math.atanh(inner) - reach), math.tanh(math.atanh(inner) + reach)
    return min(low, correlation), max(high, correlation)


@lru_cache(maxsize=256)
def _rank_range(count: int, confidence: float) -> Interval:
    """Return the real ranks l, u with P(U_(l) > 0.95) = P(U_(u) < 0.95) = the tail, of count uniform samples.

    Ranks 0 and count + 1 mean below the smallest and above the largest sample. P(U_(k) > p) is the binomial
    distribution function at k - 1, extended to real k by the incomplete beta function.
    """
    from scipy.special import bdtrik

    tail = _tail(confidence)
    lowest = 1 + float(bdtrik(tail, count, 0.95)) if 0.05**count < tail else 0.0
    highest = 1 + float(bdtrik(1 - tail, count, 0.95)) if 0.95**count <= tail else count + 1.0
    return lowest, highest


def _shares(
    kept: Tensor, other: Tensor, lowest: float, highest: float
) -> tuple[tuple[float, float, float], float]:
    """Return the shares of sorted `other` at three ranks of sorted `kept`, and the share of ties between them."""
    import torch

    count = len(kept)
    low, high = math.floor(lowest), math.floor(highest)
    ranks = torch.tensor([low, low + 1, accepting_rank(count), high, high + 1], device=kept.device)
    thresholds = kept[ranks.clamp(1, count) - 1]
    shares = count_at_most(other, thresholds).double() / len(other)  # (5,)
    shares = shares.masked_fill(ranks < 1, 0.0).masked_fill(ranks > count, 1.0)
    between = kept[max(low, 1) - 1 : min(high + 1, count)]
    tied = (between[1:] == between[:-1]).double().sum() / max(len(between) - 1, 1)
    below, least, share, most, above, tied_share = torch.cat([shares, tied[None]]).tolist()
    return (
        min(below + (lowest - low) * (least - below), share),
        share,
        max(most + (highest - high) * (above - most), share),
    ), tied_share
