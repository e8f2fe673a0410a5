"""IsoMax (Macêdo et al., IJCNN 2021) and IsoMax+ (arXiv 2105.14399): logits are minus distances to prototypes.

Their scores `entropic`, `min_distance` and `msp` read only logits, so they apply to every classifier. They are in
harness_plugins.scorers.logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

import harness

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_NORM = 1e-12


class IsoMaxHead(nn.Module):
    """Logits -‖f - p_c‖₂ / T, (N, D) -> (N, C) (IJCNN 2021, eq. 4).

    `prototypes` (C, D) start at zero, so that all classes are equally far and the first loss is ln C.
    """

    def __init__(self, num_features: int, num_classes: int, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.num_features, self.num_classes = num_features, num_classes
        self.temperature = _positive("temperature", temperature)
        self.prototypes = nn.Parameter(torch.zeros(num_classes, num_features))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, at least in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return -distances(_in_full(features), self.prototypes) / self.temperature

    def extra_repr(self) -> str:
        """Return the head's parameters."""
        return f"{self.num_features}, {self.num_classes}, temperature={self.temperature}"


class IsoMaxPlusHead(nn.Module):
    """Logits -|s| ‖f/‖f‖ - p_c/‖p_c‖‖₂ / T, (N, D) -> (N, C) (arXiv 2105.14399, eq. 5).

    `prototypes` (C, D) start standard normal; `distance_scale` (1,), the learnable s, starts at 1.
    """

    def __init__(self, num_features: int, num_classes: int, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.num_features, self.num_classes = num_features, num_classes
        self.temperature = _positive("temperature", temperature)
        self.prototypes = nn.Parameter(torch.randn(num_classes, num_features))
        self.distance_scale = nn.Parameter(torch.ones(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, at least in float32."""
        with torch.autocast(features.device.type, enabled=False):
            units = functional.normalize(_in_full(features), dim=1, eps=SMALLEST_NORM)
            centres = functional.normalize(self.prototypes, dim=1, eps=SMALLEST_NORM)
            return -self.distance_scale.abs() * distances(units, centres) / self.temperature

    def extra_repr(self) -> str:
        """Return the head's parameters."""
        return f"{self.num_features}, {self.num_classes}, temperature={self.temperature}"


def distances(points: Tensor, centres: Tensor) -> Tensor:
    """Compute Euclidean distances, (N, D), (C, D) -> (N, C), from differences.

    The expansion into a matrix product would lose the digits of small distances. At a distance of zero the
    gradient is zero.
    """
    return torch.cdist(points, centres.to(points.dtype), compute_mode="donot_use_mm_for_euclid_dist")


def isomax_loss(logits: Tensor, targets: Tensor, entropic_scale: float = 10.0) -> Tensor:
    """Compute the mean cross-entropy of `entropic_scale` × logits (N, C) for classes (N,).

    The scale is used in training only: logits are scored without it (IJCNN 2021, section III).
    """
    return functional.cross_entropy(entropic_scale * logits, targets)


@dataclass(frozen=True)
class IsoMax:
    """Logits -distance to class prototypes, and their scaled cross-entropy (Macêdo et al., IJCNN 2021).

    Its authors score it by the entropic score.
    """

    entropic_scale: float = 10.0  # a factor of the logits in the loss, not in the scores
    temperature: float = 1.0  # a divisor of the logits

    def __post_init__(self) -> None:
        _positive("entropic_scale", self.entropic_scale)
        _positive("temperature", self.temperature)

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return a distance head with prototypes at zero."""
        return IsoMaxHead(num_features, num_classes, temperature=self.temperature)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits (N, C) for classes (N,)."""
        return isomax_loss(outputs, targets, self.entropic_scale)


@dataclass(frozen=True)
class IsoMaxPlus(IsoMax):
    """IsoMax between unit vectors, at a learnt scale of the distances (Macêdo et al., arXiv 2105.14399).

    Its authors score it by the minimum distance.
    """

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return a head of scaled distances between unit vectors, with prototypes drawn from torch's generator."""
        return IsoMaxPlusHead(num_features, num_classes, temperature=self.temperature)


def _in_full(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise harness.InputError(f"{name} is {value}. Give a number above 0")
    return value
