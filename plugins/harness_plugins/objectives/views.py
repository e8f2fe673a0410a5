"""Shared parts of objectives on two views of an image: projector, predictor and an EMA teacher of an encoder."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import harness

if TYPE_CHECKING:
    from torch import Tensor

VIEWS = 2


class Embedding(nn.Module):
    """An encoder and a projector: images (N, channels, H, W) to projections (N, d)."""

    def __init__(self, encoder: harness.Classifier, num_features: int, *, hidden: int, dim: int) -> None:
        super().__init__()
        module: Any = encoder
        self.encoder: Any = module
        self.projector = perceptron(num_features, hidden, dim)

    def forward(self, images: Tensor) -> Tensor:
        """Project the penultimate features of the images."""
        maps = self.encoder.forward_features(images)
        projections: Tensor = self.projector(self.encoder.forward_head(maps, pre_logits=True))
        return projections


class TwoViews(nn.Module):
    """A student and an optional teacher: images of both views (2n, channels, H, W) to (R, 2, n, d).

    R = 1: the student's projections only. R = 2: also the teacher's, without gradient. The teacher's parameters are
    an exponential moving average of the student's, θ' <- ema θ' + (1 - ema) θ after every step; its BatchNorm has its
    own statistics. With a predictor, the student's prediction replaces its projection.
    """

    def __init__(
        self,
        encoder: harness.Classifier,
        num_features: int,
        *,
        hidden: int,
        dim: int,
        ema: float | None = None,
        predicts: bool = False,
    ) -> None:
        super().__init__()
        self.student = Embedding(encoder, num_features, hidden=hidden, dim=dim)
        self.predictor = perceptron(dim, hidden, dim) if predicts else nn.Identity()
        self.ema = ema
        self.teacher = None if ema is None else copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed both views in one batch, so that BatchNorm sees them together."""
        found = [self.predictor(self.student(images))]
        if self.teacher is not None:
            with torch.no_grad():
                found.append(self.teacher(images))
        return torch.stack(found).reshape(len(found), VIEWS, -1, found[0].shape[1])

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher's parameters towards the student's."""
        if self.teacher is None or self.ema is None:
            return
        for own, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            own.lerp_(new, 1 - self.ema)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build Linear, BatchNorm, ReLU, Linear: (N, inputs) to (N, outputs)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


def check_sizes(hidden: int, dim: int) -> None:
    """Raise InputError for invalid widths of a projector."""
    for name, value, least in (("hidden", hidden, 1), ("dim", dim, 2)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise harness.InputError(f"{name} is {value!r}. Give a whole number of at least {least}")


def check_above_zero(name: str, value: float) -> None:
    """Raise InputError unless the value is a number above 0."""
    if not 0 < value < math.inf:
        raise harness.InputError(f"{name} is {value}. Give a number above 0")


def check_ema(ema: float | None) -> None:
    """Raise InputError unless a teacher's coefficient is a share."""
    if ema is not None and not 0 <= ema <= 1:
        raise harness.InputError(f"ema is {ema}. Give a share from 0 to 1")
