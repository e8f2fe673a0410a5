"""The base class of this package's networks, and checks of their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

import harness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

InputSize = tuple[int, int, int]  # channels, height, width


class Network(nn.Module):
    """Stages in sequence, pooling, dropout, a linear head.

    `feature_info` describes the stages as timm does: `module` is a submodule's name, `num_chs` its channels.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        *,
        channels: Sequence[int],
        pool: Callable[[Tensor], Tensor],
        num_features: int,
        num_outputs: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.num_classes = num_outputs
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": number, "module": f"stages.{name}"}
            for name, number in zip(stages, channels, strict=True)
        ]
        self.stages = nn.Sequential()
        for name, stage in stages.items():
            self.stages.add_module(name, stage)
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(num_features, num_outputs)

    def forward_features(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to the last stage's output."""
        features: Tensor = self.stages(images)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last stage's output to penultimate features (N, D), or on to logits (N, C)."""
        penultimate = self.pool(features)
        if pre_logits:
            return penultimate
        logits: Tensor = self.fc(self.dropout(penultimate))
        return logits

    def get_classifier(self) -> nn.Linear:
        """Return the linear layer from penultimate features (N, D) to logits (N, C)."""
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to logits (N, C)."""
        return self.forward_head(self.forward_features(images))


def positive(name: str, value: object) -> int:
    """Return a whole number of at least 1; raise InputError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise harness.InputError(f"{name} is {value!r}. Give a whole number of at least 1")
    return value


def share(name: str, value: object) -> float:
    """Return a share from 0 to below 1; raise InputError for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise harness.InputError(f"{name} is {value!r}. Give a share from 0 to below 1")
    return float(value)


def require_size(name: str, minimum: int, length: int, input_size: InputSize) -> None:
    """Raise InputError if images are smaller than a network's minimum."""
    if length < minimum:
        raise harness.InputError(
            f"the network {name!r} needs images of at least {minimum}x{minimum} pixels. "
            f"input_size is {input_size}"
        )
