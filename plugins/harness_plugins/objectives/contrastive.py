"""Baselines of ER on two views: InfoNCE as in SimCLR, and BYOL, which uses no negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional

from harness_plugins.objectives.views import VIEWS, TwoViews, check_above_zero, check_ema, check_sizes

if TYPE_CHECKING:
    from torch import Tensor

    import harness


@dataclass(frozen=True)
class InfoNCE:
    """NT-Xent (Chen et al., SimCLR, ICML 2020, eq. 1), the form of InfoNCE (van den Oord et al., 2018) on two views.

    Each of the 2n projections identifies the other view of its image, by cosine similarity, among it and the 2n - 2
    projections of other images. The temperature 0.5 is SimCLR's for small images.
    """

    views: ClassVar[int] = VIEWS
    temperature: float = 0.5
    hidden: int = 128  # width of the projection head
    dim: int = 64  # dimension of the projections

    def __post_init__(self) -> None:
        check_above_zero("temperature", self.temperature)
        check_sizes(self.hidden, self.dim)

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the identity: the objective trains an encoder."""
        return nn.Identity()

    def around(self, classifier: harness.Classifier, num_features: int) -> nn.Module:
        """Return the encoder with a projector."""
        return TwoViews(classifier, num_features, hidden=self.hidden, dim=self.dim)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of projections (1, 2, n, d)."""
        return info_nce(outputs[0, 0], outputs[0, 1], self.temperature)


@dataclass(frozen=True)
class BYOL:
    """Bootstrap your own latent (Grill et al., NeurIPS 2020, eq. 2): predict the teacher's other view.

    `ema` is the teacher's coefficient, constant here; in the paper it rises from 0.996 to 1 over a longer training.
    """

    views: ClassVar[int] = VIEWS
    ema: float = 0.99
    hidden: int = 128  # width of the projection head
    dim: int = 64  # dimension of the projections

    def __post_init__(self) -> None:
        check_ema(self.ema)
        check_sizes(self.hidden, self.dim)

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the identity: the objective trains an encoder."""
        return nn.Identity()

    def around(self, classifier: harness.Classifier, num_features: int) -> nn.Module:
        """Return the encoder with a projector, a predictor and a teacher."""
        return TwoViews(
            classifier, num_features, hidden=self.hidden, dim=self.dim, ema=self.ema, predicts=True
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of the student's predictions and the teacher's projections (2, 2, n, d)."""
        (first, second), (first_target, second_target) = outputs
        return distance_of_units(first, second_target) + distance_of_units(second, first_target)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Compute the mean over both views' rows (n, d) of -cos(i, i') / τ + ln Σ_{k ≠ i} exp(cos(i, k) / τ)."""
    units = functional.normalize(torch.cat([first, second]), dim=1)  # (2n, d)
    cosines = (units @ units.T) / temperature
    itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
    partners = torch.arange(len(units), device=units.device).roll(len(first))
    return functional.cross_entropy(cosines.masked_fill(itself, -torch.inf), partners)


def distance_of_units(first: Tensor, second: Tensor) -> Tensor:
    """Compute the mean over rows (n, d) of ‖a/‖a‖ - b/‖b‖‖² = 2 - 2 cos(a, b)."""
    return 2 - 2 * functional.cosine_similarity(first, second, dim=1).mean()
