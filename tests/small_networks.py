"""A small network with confident predictions, and images without labels, for what adapts."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import harness

CLASSES = 4


class Network(nn.Module):
    """A convolution, a normalisation, a mean, and a linear head."""

    def __init__(self, norm: str, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8) if norm == "batch" else nn.GroupNorm(2, 8)
        self.fc = nn.Linear(8, classes)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu()

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def made(norm: str = "batch", classes: int = CLASSES, sharp: float = 20.0) -> Any:
    """Build a network with confident predictions, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(norm, classes)
        network.fc.weight.data *= sharp
        return network.eval()


def target(network: Any, count: int = 200, seed: int = 0) -> harness.Unlabelled:
    images = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(count, CLASSES)
    return harness.Unlabelled(
        harness.FeatureSet.of(harness.Features(logits=logits)),
        batch=lambda positions: images[positions],
        model=lambda: copy.deepcopy(network).eval(),
        seed=seed,
    )
