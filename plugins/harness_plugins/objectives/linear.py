"""Objectives on the network's own linear head: cross-entropy, LogitNorm and outlier exposure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional

import harness

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy with smoothed labels (Szegedy et al., CVPR 2016): 1 - ε on the class, ε/C on every class."""

    label_smoothing: float = 0.0  # ε, in 0 to 1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise harness.InputError(
                f"label_smoothing is {self.label_smoothing}. Give a share from 0 to below 1"
            )

    def head(self, num_features: int, num_classes: int) -> nn.Module | None:
        """Return None: the network keeps its own head."""
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits (N, C) for classes (N,)."""
        return functional.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class LogitNorm:
    """Cross-entropy of z / (τ ‖z‖₂) (Wei et al., ICML 2022, eq. 5), so that confidence cannot grow with the norm.

    As in the paper, only training normalises: logits are scored without normalisation.
    """

    temperature: float = 0.04  # τ, the authors' choice for CIFAR-10

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise harness.InputError(f"temperature is {self.temperature}. Give a number above 0")

    def head(self, num_features: int, num_classes: int) -> nn.Module | None:
        """Return None: the network keeps its own head."""
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits (N, C) for classes (N,)."""
        norms = outputs.norm(dim=1, keepdim=True) + 1e-7  # the authors' guard against a zero vector
        return functional.cross_entropy(outputs / norms / self.temperature, targets)


@dataclass(frozen=True)
class OutlierExposure:
    """Cross-entropy on ID plus λ times that of outliers to the uniform distribution (Hendrycks et al., ICLR 2019).

    The loss is mean_ID CE(z, y) + λ mean_outliers (logsumexp(z) - mean_c z_c).
    """

    weight: float = 0.5  # λ, the authors' choice for images

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise harness.InputError(f"weight is {self.weight}. Give 0 or more")

    def head(self, num_features: int, num_classes: int) -> nn.Module | None:
        """Return None: the network keeps its own head."""
        return None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits (N, C) for classes (N,), -1 for outliers."""
        is_outlier = targets < 0
        known, outliers = outputs[~is_outlier], outputs[is_outlier]
        loss = functional.cross_entropy(known, targets[~is_outlier])
        if not len(outliers):
            return loss
        return loss + self.weight * (outliers.logsumexp(dim=1) - outliers.mean(dim=1)).mean()
