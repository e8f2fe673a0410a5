"""Prototypes: what DINO, SwAV, DeepCluster and the discrete ER assign the two views of an image to."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

import harness
from harness_plugins.objectives.views import TwoViews

if TYPE_CHECKING:
    from torch import Tensor


class Prototypes(nn.Module):
    """K learnt directions: vectors (N, d) to their cosines (N, K)."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Compute the cosines in full precision: temperatures multiply their errors by 10 and more."""
        with torch.autocast(vectors.device.type, enabled=False):
            units = functional.normalize(vectors.float(), dim=1)
            return functional.linear(units, functional.normalize(self.weight, dim=1))


class PrototypeViews(TwoViews):
    """TwoViews with prototypes after the projector: images (2n, channels, H, W) to cosines (R, 2, n, K)."""

    def __init__(
        self,
        encoder: harness.Classifier,
        num_features: int,
        *,
        hidden: int,
        dim: int,
        prototypes: int,
        ema: float | None = None,
    ) -> None:
        super().__init__(encoder, num_features, hidden=hidden, dim=dim)
        self.student.projector = nn.Sequential(self.student.projector, Prototypes(dim, prototypes))
        self.ema = ema
        self.teacher = None if ema is None else copy.deepcopy(self.student).requires_grad_(False)


def swapped_cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """Compute ½ [CE(t₁, s₂) + CE(t₂, s₁)], averaged over images: each view predicts the other's assignment.

    Args:
        targets: assignments of both views, (2, n, K). No gradient goes through them.
        logits: of the student's assignments s, (2, n, K).

    """
    return -(targets.detach().flip(0) * logits.log_softmax(dim=-1)).sum(dim=-1).mean()


def check_prototypes(count: int) -> None:
    """Raise InputError unless there are two prototypes or more."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise harness.InputError(f"prototypes is {count!r}. Give a whole number of at least 2")
