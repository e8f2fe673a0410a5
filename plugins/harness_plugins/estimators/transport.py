"""Confidence optimal transport (Lu et al., NeurIPS 2023): optimal matching of predictions to ID's labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import harness
from harness_plugins.adapters.tent import require_whole
from harness_plugins.estimators.outputs import Validation, clipped, of_mean, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class OptimalTransport:
    """1 - ½ W₁ between one-hot labels, with the frequencies of ID, and predictions; ground cost L1 (section 3).

    This is the maximum over couplings of the mean of p_y. `thresholded` (COTT) counts images whose p_y is at least a
    threshold that fits ID's errors. At most `limit` images are used, drawn at random.
    """

    thresholded: bool = False
    temperature: bool = True  # whether logits are scaled by a temperature that is fitted on ID validation
    limit: int = 2000

    def __post_init__(self) -> None:
        require_whole("limit", self.limit)

    def fit(self, data: harness.FitData) -> FittedTransport:
        """Find the temperature, ID's label frequencies, and the threshold."""
        known = Validation.of(data, temperature=self.temperature)
        classes = known.probabilities.shape[1]
        marginal = np.bincount(known.labels.cpu().numpy(), minlength=classes) / len(known.labels)
        drawn = self.probabilities(data.validation, known.temperature, seed=0)
        matched = np.sort(matched_probabilities(drawn, marginal))
        errors = round((1 - known.accuracy) * len(matched))
        threshold = matched[errors] if errors < len(matched) else np.inf
        return FittedTransport(self, known.temperature, marginal, float(threshold))

    def probabilities(self, features: harness.FeatureSet, temperature: float, *, seed: int) -> Array:
        """Compute the probabilities of all images, or of `limit` drawn ones, (n, C)."""
        drawn = features.only(frozenset({"logits"})).sample(self.limit, seed)
        chunks = probabilities(harness.FeatureSet.of(drawn), temperature)
        found: Array = torch.cat(list(chunks)).cpu().numpy()
        return found


@dataclass(frozen=True, eq=False)
class FittedTransport:
    """Optimal matching with known label frequencies."""

    settings: OptimalTransport
    temperature: float
    marginal: Array  # (C,)
    threshold: float

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Match, then average p_y or count; the bootstrap interval over images keeps the match."""
        p = self.settings.probabilities(target.features, self.temperature, seed=target.seed)
        matched = matched_probabilities(p, self.marginal)
        values = (matched >= self.threshold).astype(float) if self.settings.thresholded else matched
        return of_mean(values, target.seed, clipped)


def matched_probabilities(p: Array, marginal: Array) -> Array:
    """Assign a label to each image by optimal matching, and return the label's probability, (N,).

    p is (N, C). Label counts are N times the marginal (C,), rounded by the largest remainders. The sum of the returned
    probabilities is maximal: the assignment of N images to N labels is exact.
    """
    from scipy.optimize import linear_sum_assignment

    labels = np.repeat(np.arange(p.shape[1]), _rounded(marginal * len(p)).astype(np.int64))  # (N,)
    images, places = linear_sum_assignment(p[:, labels], maximize=True)
    matched: Array = p[images, labels[places]]
    return matched


def _rounded(shares: Array) -> Array:
    """Round numbers by the largest remainders, which keeps their sum, a whole number."""
    whole = np.floor(shares)
    missing = round(float(shares.sum() - whole.sum()))
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    return whole
