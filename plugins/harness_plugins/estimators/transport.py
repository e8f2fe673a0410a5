"""Confidence optimal transport (Lu et al., NeurIPS 2023): the best match of predictions with ID's labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness_plugins.adapters.tent import require_whole
from harness_plugins.estimators.outputs import Validation, clipped, of_mean, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import harness

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class OptimalTransport:
    """1 - ½ W₁ between one-hot labels, as frequent as on ID, and predictions, with ground cost L1 (section 3).

    That is the maximum over couplings of the mean of p_y. `thresholded` counts images whose p_y is at or above the one
    that fits ID's errors instead (COTT). Beyond `limit` images, so many are drawn.
    """

    thresholded: bool = False
    temperature: bool = True
    limit: int = 2000

    def __post_init__(self) -> None:
        require_whole("limit", self.limit)

    def fit(self, data: harness.FitData) -> FittedTransport:
        """Find the temperature, ID's label frequencies, and the threshold."""
        known = Validation.of(data, temperature=self.temperature)
        p = known.probabilities.cpu().numpy()
        marginal = np.bincount(known.labels.cpu().numpy(), minlength=p.shape[1]) / len(p)
        matched = np.sort(matched_probabilities(_drawn(p, self.limit, 0), marginal))
        errors = round((1 - known.accuracy) * len(matched))
        threshold = matched[errors] if errors < len(matched) else np.inf
        return FittedTransport(self, known.temperature, marginal, float(threshold))


@dataclass(frozen=True, eq=False)
class FittedTransport:
    """The match with known label frequencies."""

    settings: OptimalTransport
    temperature: float
    marginal: Array  # (C,)
    threshold: float

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Match, and average p_y or count, with the bootstrap over images, the match kept."""
        p = torch.cat(list(probabilities(target.features, self.temperature))).cpu().numpy()
        matched = matched_probabilities(_drawn(p, self.settings.limit, target.seed), self.marginal)
        values = (matched >= self.threshold).astype(float) if self.settings.thresholded else matched
        return of_mean(values, target.seed, clipped)


def matched_probabilities(p: Array, marginal: Array) -> Array:
    """Give each image the label of the best match, and return its probability, (N,).

    p is (N, C). Labels come as often as the marginal (C,) says of N, rounded by the largest remainders; the sum of what
    is returned is the greatest that they allow: exactly, as an assignment of N images to N labels.
    """
    from scipy.optimize import linear_sum_assignment

    labels = np.repeat(np.arange(p.shape[1]), _rounded(marginal * len(p)).astype(np.int64))  # (N,)
    images, places = linear_sum_assignment(p[:, labels], maximize=True)
    matched: Array = p[images, labels[places]]
    return matched


def _rounded(shares: Array) -> Array:
    """Round numbers that add up to a whole one so that they still do, by the largest remainders."""
    whole = np.floor(shares)
    missing = round(float(shares.sum() - whole.sum()))
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    return whole


def _drawn(p: Array, limit: int, seed: int) -> Array:
    if len(p) <= limit:
        return p
    return p[np.sort(np.random.default_rng(seed).choice(len(p), size=limit, replace=False))]
