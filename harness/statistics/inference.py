"""Uncertainty of AUROCs, tests for differences between scorers, and ranges of their ranks.

Shapes: S scorers, m ID samples, n OOD samples, R seeds. Placements, one number per sample, stay on the device of the
scores. All smaller results are numpy arrays on the host and need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import InputError
from harness.statistics.ranking import count_at_most, count_below, read_pair, share_of_pairs, sort_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Scores = NDArray[Any] | Tensor
    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

FEWEST_SEEDS = 5  # with fewer seeds, no difference between runs is called significant
ROUNDING = 64 * np.finfo(np.float64).eps  # relative rounding error of a variance


@dataclass(frozen=True, eq=False)
class Placements:
    """The AUROC of S scorers on one pair of ID and OOD sets, and the placements of all samples.

    v10 is, for each ID sample, the share of OOD samples above it; v01 is, for each OOD sample, the share of ID samples
    below it. Ties count half. The mean of each is the AUROC. They are the structural components of DeLong et al.
    (Biometrics 1988).
    """

    auroc: Floats  # (S,)
    v10: Tensor  # (S, m)
    v01: Tensor  # (S, n)

    def covariance(self) -> Floats:
        """Estimate the covariance (S, S) of the AUROCs: cov(v10) / m + cov(v01) / n.

        DeLong et al. (1988); the two covariances are divided by m - 1 and n - 1. Raises InputError for fewer than two
        samples on a side.
        """
        return _covariance_of_mean(self.v10, "ID") + _covariance_of_mean(self.v01, "OOD")


def placements(id_scores: Scores, ood_scores: Scores) -> Placements:
    """Compute the AUROC and the placements of one or several scorers in O((m + n) log(m + n)) each.

    Scores (m,) and (n,) for one scorer, S = 1, or (S, m) and (S, n) with the same order of samples for all scorers;
    higher = more OOD. Raises InputError for NaN, an empty side, wrong shapes and two devices. Like Sun & Xu (IEEE
    Signal Processing Letters 2014), it sorts; it then counts by binary search instead of mid-ranks.
    """
    ids, oods = read_pair(id_scores, ood_scores, dims=(1, 2))
    ids, oods = ids.reshape(-1, ids.shape[-1]), oods.reshape(-1, oods.shape[-1])
    m, n = ids.shape[-1], oods.shape[-1]
    (ids, id_order), (oods, ood_order) = sort_scores(ids), sort_scores(oods)
    twice_id_below = _count_twice_below(ids, oods, ood_order)  # (S, n)
    twice_ood_below = _count_twice_below(oods, ids, id_order)  # (S, m)
    return Placements(
        auroc=share_of_pairs(twice_id_below, m).cpu().numpy(),
        v10=(2 * n - twice_ood_below).double() / (2 * n),
        v01=twice_id_below.double() / (2 * m),
    )


def _count_twice_below(others: Tensor, scores: Tensor, order: Tensor) -> Tensor:
    """Count the others below each sorted score, twice, and the ties, once; return the counts in the original order."""
    counts = count_below(others, scores) + count_at_most(others, scores)
    return counts.new_empty(counts.shape).scatter_(-1, order, counts)


def _covariance_of_mean(rows: Tensor, side: str) -> Floats:
    """Estimate the covariance (S, S) of the means of rows (S, N)."""
    count = rows.shape[1]
    if count < 2:
        raise InputError(
            f"{count} {side} sample; a variance needs 2 or more: add samples, or leave out the interval"
        )
    deviations = rows - rows[:, :1]  # equal placements (a perfect scorer) get variance exactly 0
    deviations = deviations - deviations.mean(dim=1, keepdim=True)
    covariance: Floats = (deviations @ deviations.T / (count - 1) / count).cpu().numpy()
    return covariance


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """The weighted mean AUROC of S scorers over OOD sets that share their ID samples, and its covariance."""

    auroc: Floats  # (S,)
    covariance: Floats  # (S, S)
    n_id: int
    n_ood_effective: float  # size of one set with the same OOD variance: 1 / sum_k (w_k² / n_k)


class MeanAccumulator:
    """Computes the mean AUROC over OOD sets one set at a time, so that memory holds (S, m) and not (K, S, m).

    All sets share their ID samples, in the same order, so their AUROCs are correlated. With weights w_k that sum to 1,

        Cov = cov_i(sum_k w_k V10_i^k) / m + sum_k w_k² cov(V01^k) / n_k,

    which is DeLong's covariance of the mean's own placements: on the ID side, the mean is taken per sample; on the OOD
    side, the sets are independent. Treating the sets as independent on both sides makes intervals too narrow.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._weight = 0.0
        self._square_weight_per_sample = 0.0
        self._auroc: Floats | float = 0.0
        self._v10: Tensor | float = 0.0
        self._ood_covariance: Floats | float = 0.0

    def add(self, placements: Placements, weight: float = 1.0) -> None:
        """Add one OOD set; the weights need not sum to 1.

        Raises InputError for a weight that is not positive, a number of scorers or ID samples that differs from before,
        and fewer than two samples on a side.
        """
        shape = tuple(placements.v10.shape)
        if not 0 < weight < np.inf:
            raise InputError(
                f"weight is {weight}; valid: positive numbers. Leave out a set that should not count"
            )
        if self._shape not in ((), shape):
            raise InputError(
                f"placements of shape (S, m) {shape} after {self._shape}: all sets share their ID samples"
            )
        self._shape = shape
        self._weight += weight
        self._square_weight_per_sample += weight**2 / placements.v01.shape[1]
        self._auroc = self._auroc + weight * placements.auroc
        self._v10 = self._v10 + weight * placements.v10
        self._ood_covariance = self._ood_covariance + weight**2 * _covariance_of_mean(placements.v01, "OOD")

    def estimate(self) -> MeanEstimate:
        """Return the mean over the sets so far, and its covariance; raises InputError if there are none.

        n_ood_effective is the sample size for Newcombe's interval of an extreme mean: if the placements of all sets had
        equal variance, one set of this size would have the OOD variance of the mean.
        """
        if isinstance(self._v10, float) or isinstance(self._auroc, float):
            raise InputError("the mean of no OOD sets: add the placements of at least one")
        covariance = _covariance_of_mean(self._v10, "ID") + self._ood_covariance
        return MeanEstimate(
            auroc=self._auroc / self._weight,
            covariance=covariance / self._weight**2,
            n_id=self._shape[1],
            n_ood_effective=self._weight**2 / self._square_weight_per_sample,
        )


def weighted_mean(placements: Iterable[Placements], weights: Sequence[float] | None = None) -> MeanEstimate:
    """Estimate the mean AUROC over OOD sets that share their ID samples, and its covariance.

    One weight per set, in any unit; equal weights if None. Equation and errors: MeanAccumulator.
    """
    sets = list(placements)
    weights = [1.0] * len(sets) if weights is None else weights
    if len(weights) != len(sets):
        raise InputError(f"{len(weights)} weights for {len(sets)} OOD sets: give one per set")
    mean = MeanAccumulator()
    for one, weight in zip(sets, weights, strict=True):
        mean.add(one, weight)
    return mean.estimate()


def paired_p_values(auroc: ArrayLike, covariance: ArrayLike) -> Floats:
    """Compute two-sided p-values (S, S) for the equality of two AUROCs, by DeLong's z-test on the difference.

    AUROCs (S,) and their covariance (S, S), of one set or of a mean. Equal AUROCs have p = 1; unequal AUROCs whose
    difference has variance 0 have p = 0. A variance below its rounding error is raised to that error, so that rounding
    alone never makes two nearly identical scorers differ. Raises InputError for wrong shapes and NaN.
    """
    from scipy.special import ndtr

    means, spread = _as_floats(auroc, "auroc", 1), _as_floats(covariance, "covariance", 2)
    if spread.shape != (len(means), len(means)):
        raise InputError(
            f"covariance has shape {spread.shape}; valid: ({len(means)}, {len(means)}), to match auroc"
        )
    variances = spread.diagonal()[:, None] + spread.diagonal()[None, :]
    scale = np.sqrt(np.maximum(variances - 2 * spread, ROUNDING * variances))
    p_values: Floats = 2 * ndtr(-_standardise(means[:, None] - means[None, :], scale))
    return p_values


def paired_t_p_values(values: ArrayLike) -> Floats:
    """Compute two-sided p-values (S, S) for the equality of two scorers' means over seeds, by the paired t-test.

    Values (S, R), one column per seed, so that each difference is taken within one checkpoint; df = R - 1. With fewer
    than FEWEST_SEEDS seeds every p is 1: undecided. Equal means have p = 1; a difference that is the same for all seeds
    has p = 0. Raises InputError for wrong shapes and NaN. Student (Biometrika 1908).
    """
    from scipy.special import stdtr

    runs = _as_floats(values, "values", 2)
    seeds = runs.shape[1]
    if seeds < FEWEST_SEEDS:
        return np.ones((len(runs), len(runs)))
    differences = runs[:, None, :] - runs[None, :, :]  # (S, S, R)
    error = differences.std(axis=-1, ddof=1) / np.sqrt(seeds)
    error[error <= ROUNDING * np.abs(runs).max(initial=0.0)] = 0.0
    p_values: Floats = 2 * stdtr(seeds - 1, -_standardise(differences.mean(axis=-1), error))
    return p_values


def _standardise(differences: Floats, scale: Floats) -> Floats:
    """Divide absolute differences by their scale; 0 / 0 is 0, and x / 0 is infinite."""
    sizes = np.abs(differences)
    sizes[sizes <= ROUNDING] = 0.0  # AUROCs and means have magnitude of about 1
    endless = np.where(sizes > 0, np.inf, 0.0)
    return np.divide(sizes, scale, out=endless, where=scale > 0)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values (K,) so that rejecting those at most alpha has a family-wise error rate of at most alpha.

    Step-down: the i-th smallest of K is multiplied by K - i + 1, then made monotone and at most 1. Raises InputError
    for values outside 0..1. Holm (Scandinavian Journal of Statistics 1979).
    """
    raw = _as_floats(p_values, "p_values", 1)
    if ((raw < 0) | (raw > 1)).any():
        raise InputError(f"p_values reach from {raw.min()} to {raw.max()}; valid: 0..1")
    order = np.argsort(raw, kind="stable")
    steps = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def rank_ranges(auroc: ArrayLike, p_values: ArrayLike, alpha: float = 0.05) -> tuple[Integers, Integers]:
    """Compute each scorer's best and worst rank, (S,) each, that the pairwise tests allow.

    Best is 1 + the number of significantly better scorers; worst is S - the number of significantly worse ones. Holm's
    adjustment is over all S(S - 1) / 2 pairs. Values (S,), higher is better, and p-values (S, S), of which only the
    upper triangle is read. Raises InputError for wrong shapes, NaN and alpha outside 0..1.
    """
    means, raw = _as_floats(auroc, "auroc", 1), _as_floats(p_values, "p_values", 2)
    count = len(means)
    if raw.shape != (count, count):
        raise InputError(
            f"p_values has shape {raw.shape}; valid: ({count}, {count}), because auroc has {count} scorers"
        )
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}; valid: between 0 and 1, such as 0.05")
    pairs = np.triu_indices(count, k=1)
    differ = np.zeros((count, count), dtype=bool)
    differ[pairs] = holm(raw[pairs]) <= alpha
    better = (differ | differ.T) & (means[:, None] > means[None, :])  # row beats column
    return 1 + better.sum(axis=0), count - better.sum(axis=1)


def _as_floats(values: ArrayLike, name: str, dims: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dims:
        raise InputError(f"{name} has shape {array.shape}; valid: {dims} dimension{'s' if dims > 1 else ''}")
    if np.isnan(array).any():
        raise InputError(
            f"{name} holds {int(np.isnan(array).sum())} NaN of {array.size}: leave those scorers out"
        )
    return array
