"""Tiny networks with each kind of normalisation, and batches for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CLASSES, FEATURES = 4, 6


class Tiny(nn.Module):
    """Convolution, normalisation, ReLU, pooling, a linear head: timm's interface."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, FEATURES, 3, padding=1)
        self.norm = norm
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu()

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.fc


class ChannelsLastLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (n, C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NORMS = {
    "batch": lambda: nn.BatchNorm2d(FEATURES),
    "group": lambda: nn.GroupNorm(2, FEATURES),
    "layer": lambda: ChannelsLastLayerNorm(FEATURES),
    "none": nn.Identity,
}


def tiny(norm: str = "batch", seed: int = 0, scale: float = 1.0) -> Any:
    """Make a network in evaluation mode, float64, whose running statistics are not those of any batch."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Tiny(NORMS[norm]())
        with torch.no_grad():
            network.fc.weight.mul_(4 * scale)
            if norm == "batch":
                network.norm.running_mean.normal_(0, 0.1)
                network.norm.running_var.uniform_(0.5, 1.5)
            if norm != "none":
                network.norm.weight.uniform_(0.5, 1.5)
                network.norm.bias.normal_(0, 0.3)
    return network.double().eval()


@pytest.fixture
def network() -> Any:
    return tiny()


@pytest.fixture
def batches() -> list[Tensor]:
    """Three batches of eight images."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 1, 5, 5, dtype=torch.float64, generator=generator) for _ in range(3)]


def twin(network: Any) -> Any:
    """Copy a network."""
    return copy.deepcopy(network)
