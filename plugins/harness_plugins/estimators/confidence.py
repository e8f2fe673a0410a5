"""Accuracy from confidence: its mean, and its difference to that on ID (Guillory et al., ICCV 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_plugins.estimators.outputs import Validation, clipped, of_mean, values_of

if TYPE_CHECKING:
    from torch import Tensor

    import harness


@dataclass(frozen=True)
class AverageConfidence:
    """The mean of max p, after temperature scaling on ID validation (Guo et al., ICML 2017)."""

    temperature: bool = True  # whether logits are scaled by a temperature that is fitted on ID validation

    def fit(self, data: harness.FitData) -> FittedConfidence:
        """Fit the temperature."""
        return FittedConfidence(Validation.of(data, temperature=self.temperature).temperature, 0.0)


@dataclass(frozen=True)
class DifferenceOfConfidences:
    """Accuracy on ID validation minus the drop of the mean of max p (Guillory et al., ICCV 2021), in 0..1."""

    temperature: bool = True  # whether logits are scaled by a temperature that is fitted on ID validation

    def fit(self, data: harness.FitData) -> FittedConfidence:
        """Fit the temperature, and compute accuracy and mean confidence on ID."""
        known = Validation.of(data, temperature=self.temperature)
        return FittedConfidence(known.temperature, known.accuracy - known.confidence)


@dataclass(frozen=True)
class FittedConfidence:
    """The mean of max p plus a constant."""

    temperature: float
    offset: float

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Average max p, with a bootstrap interval over images."""
        values = values_of(target, self.temperature, _largest)
        return of_mean(values, target.seed, lambda means: clipped(means + self.offset))


def _largest(p: Tensor) -> Tensor:
    return p.amax(dim=1)
