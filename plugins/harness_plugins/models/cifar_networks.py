"""The residual and densely connected networks of the CIFAR literature, for small images.

Each has a stem and three stages; stages 2 and 3 halve the resolution. The penultimate features are the mean over
space. Convolutions have no bias and are initialised He-normal (fan out).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

import harness
from harness_plugins.models.network import Network, positive, require_size, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from harness_plugins.models.network import InputSize


def resnet_cifar(input_size: InputSize, num_outputs: int, *, depth: int = 20) -> Network:
    """Build the ResNet for CIFAR of `depth` = 6n + 2: D = 64.

    A 3x3 convolution and three stages of n basic blocks, 16, 32 and 64 wide, with shortcuts that have no
    parameters (option A). He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """
    blocks = _repeats(depth, extra=2, example=20)
    channels, height, side = input_size
    require_size("resnet-cifar", 5, min(height, side), input_size)  # below, BatchNorm could get one value
    widths = [16, 16, 32, 64]
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            _convolution(channels, widths[0], kernel=3), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
    }
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        stages[f"stage{number}"] = nn.Sequential(
            _BasicBlock(inputs, outputs, stride=1 if number == 1 else 2),
            *(_BasicBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)),
        )
    return _network(stages, widths, num_outputs)


def densenet_bc(
    input_size: InputSize,
    num_outputs: int,
    *,
    depth: int = 100,
    growth_rate: int = 12,
    dropout: float = 0.0,
) -> Network:
    """Build the DenseNet-BC for CIFAR of `depth` = 6n + 4: D = 342 for depth 100 and growth rate 12.

    A 3x3 convolution, 2 `growth_rate` wide, and three dense blocks of n bottleneck layers; a transition
    between blocks halves channels and resolution. `dropout` follows every convolution but the first.
    Huang et al., Densely Connected Convolutional Networks, CVPR 2017, section 3.
    """
    layers = _repeats(depth, extra=4, example=100)
    growth, dropped = positive("growth_rate", growth_rate), share("dropout", dropout)
    channels, height, side = input_size
    require_size("densenet-bc", 8, min(height, side), input_size)  # below, BatchNorm could get one value
    widths = [2 * growth]
    stages: dict[str, nn.Sequential] = {
        "stem": nn.Sequential(_convolution(channels, widths[0], kernel=3)),
    }
    for number in (1, 2, 3):
        width = widths[-1]
        stage = nn.Sequential()
        if number > 1:
            stage.extend(_transition(width, width // 2, dropout=dropped))
            width //= 2
        for _ in range(layers):
            stage.append(_BottleneckLayer(width, growth, dropout=dropped))
            width += growth
        stages[f"stage{number}"] = stage
        widths.append(width)
    stages["stage3"].extend([nn.BatchNorm2d(widths[-1]), nn.ReLU()])
    return _network(stages, widths, num_outputs)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to their strided and zero-padded input (option A), then ReLU.

    Half of the zero channels come before the input's and half behind, as in the code of the IsoMax papers.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(inputs, outputs, kernel=3, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _convolution(outputs, outputs, kernel=3),
            nn.BatchNorm2d(outputs),
        )
        self.stride = stride
        self.new_channels = outputs - inputs
        self.activation = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up."""
        shortcut = maps[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            before = self.new_channels // 2
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        outputs: Tensor = self.activation(self.residual(maps) + shortcut)
        return outputs


class _BottleneckLayer(nn.Module):
    """A 1x1 and a 3x3 convolution, each after BatchNorm and ReLU, whose `growth` maps join the input."""

    def __init__(self, inputs: int, growth: int, *, dropout: float) -> None:
        super().__init__()
        self.new_maps = nn.Sequential(
            *_preactivated(inputs, 4 * growth, kernel=1, dropout=dropout),
            *_preactivated(4 * growth, growth, kernel=3, dropout=dropout),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, inputs + growth, H, W)."""
        return torch.cat([maps, self.new_maps(maps)], dim=1)


def _transition(inputs: int, outputs: int, *, dropout: float) -> list[nn.Module]:
    return [*_preactivated(inputs, outputs, kernel=1, dropout=dropout), nn.AvgPool2d(2)]


def _preactivated(inputs: int, outputs: int, *, kernel: int, dropout: float) -> list[nn.Module]:
    # Dropout of 0 stays in the sequence, so that a checkpoint's keys are the same with and without it.
    return [
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        _convolution(inputs, outputs, kernel=kernel),
        nn.Dropout(dropout),
    ]


def _convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _network(stages: Mapping[str, nn.Module], widths: list[int], num_outputs: int) -> Network:
    return Network(
        stages,
        channels=widths,
        pool=partial(torch.mean, dim=(2, 3)),
        num_features=widths[-1],
        num_outputs=num_outputs,
    )


def _repeats(depth: object, *, extra: int, example: int) -> int:
    """Return n of `depth` = 6n + `extra`, the number of blocks or layers in each of three stages."""
    if not isinstance(depth, int) or depth < 6 + extra or (depth - extra) % 6:
        raise harness.InputError(
            f"depth is {depth!r}. Give 6n + {extra} for a whole number n of at least 1, "
            f"as in depth = {example}"
        )
    return (depth - extra) // 6
