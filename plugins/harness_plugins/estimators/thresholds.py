"""Average thresholded confidence (Garg et al., ICLR 2022): the share above the threshold that fits ID's errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

import harness
from harness_plugins.estimators.outputs import Validation, clipped, of_mean, values_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ThresholdedConfidence:
    """The share of images with s ≥ t, with t such that on ID validation as many have s < t as are wrong (eq. 1).

    s is max p ("confidence", ATC-MC) or Σ p ln p ("entropy", ATC-NE). t is the (errors + 1)-th lowest score, so
    with ties fewer are below it; if all predictions are wrong, t is infinite.
    """

    score: Literal["confidence", "entropy"] = "confidence"
    temperature: bool = True  # whether logits are scaled by a temperature that is fitted on ID validation

    def __post_init__(self) -> None:
        if self.score not in ("confidence", "entropy"):
            raise harness.unknown_name("score", self.score, ["confidence", "entropy"], valid_label="Valid")

    def fit(self, data: harness.FitData) -> FittedThreshold:
        """Find the temperature and the threshold."""
        known = Validation.of(data, temperature=self.temperature)
        scores = self.scores(known.probabilities).sort().values
        errors = int((~known.hits).sum())
        threshold = float(scores[errors]) if errors < len(scores) else float("inf")
        return FittedThreshold(self, known.temperature, threshold)

    def scores(self, p: Tensor) -> Tensor:
        """Compute s of probabilities (n, C), (n,)."""
        return p.amax(dim=1) if self.score == "confidence" else torch.special.xlogy(p, p).sum(dim=1)


@dataclass(frozen=True)
class FittedThreshold:
    """The share of images at or above a threshold."""

    settings: ThresholdedConfidence
    temperature: float
    threshold: float

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Compute the share, with a bootstrap interval over images."""
        values = values_of(target, self.temperature, self.settings.scores) >= self.threshold
        return of_mean(values.astype(float), target.seed, clipped)
