"""Small networks for small images: a multilayer perceptron, a convnet, and the GEN notebook's toy network.

Each is a sequence of stages, pooling to the penultimate features (N, D), and a linear layer to the logits (N, C).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

import harness
from harness_plugins.models.network import Network, positive, require_size, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness_plugins.models.network import InputSize

NORMS, GROUPS = ("batch", "group"), 4


def mlp(
    input_size: InputSize, num_outputs: int, *, hidden: Sequence[int] = (128, 128), dropout: float = 0.0
) -> Network:
    """Build a multilayer perceptron on the flattened pixels: linear layers with ReLU, then the head.

    `hidden` are their widths; `dropout` is the share of features that training drops before the head.
    """
    if not hidden:
        raise harness.InputError(
            "hidden is empty. Give the width of at least one layer, as in hidden = [128]"
        )
    widths = [positive("hidden", width) for width in hidden]
    stages: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    size = _pixels(input_size)
    inputs = size
    for number, width in enumerate(widths, start=1):
        stages[f"hidden{number}"] = nn.Sequential(nn.Linear(inputs, width), nn.ReLU())
        inputs = width
    return Network(
        stages,
        channels=[size, *widths],
        pool=nn.Identity(),
        num_features=inputs,
        num_outputs=num_outputs,
        dropout=share("dropout", dropout),
    )


def cnn(
    input_size: InputSize, num_outputs: int, *, width: int = 32, dropout: float = 0.0, norm: str = "batch"
) -> Network:
    """Build a convnet: three stages of two 3x3 convolutions, each with a normalisation and ReLU, D = 4 `width`.

    The stages are `width`, 2 `width` and 4 `width` wide. Stages 2 and 3 halve the resolution;
    the penultimate features are the mean over space. `norm` is batch, or group: GroupNorm of 4 groups.
    `dropout` is the share of features that training drops before the head.
    """
    channels, height, side = input_size
    require_size("cnn", 5, min(height, side), input_size)  # below, BatchNorm could get one value
    widths = [positive("width", width), 2 * width, 4 * width]
    if norm not in NORMS:
        raise harness.unknown_name("norm", norm, NORMS, valid_label="Valid")
    if norm == "group" and width % GROUPS:
        raise harness.InputError(
            f"width is {width}, and GroupNorm has {GROUPS} groups. Give a multiple of {GROUPS}"
        )
    return Network(
        {
            "stage1": _double_convolution(channels, widths[0], norm, stride=1),
            "stage2": _double_convolution(widths[0], widths[1], norm, stride=2),
            "stage3": _double_convolution(widths[1], widths[2], norm, stride=2),
        },
        channels=widths,
        pool=partial(torch.mean, dim=(2, 3)),
        num_features=widths[2],
        num_outputs=num_outputs,
        dropout=share("dropout", dropout),
    )


def toy_convnet(input_size: InputSize, num_outputs: int, *, dropout: float = 0.5) -> Network:
    """Build the toy network of the GEN notebook, initialised as Keras does: D = 1,600 for 28x28 images.

    Two unpadded 3x3 convolutions, 32 and 64 wide, each with ReLU and 2x2 max pooling; the penultimate
    features are the flattened map before dropout. Weights are Glorot-uniform, biases zero.
    """
    channels, height, side = input_size
    require_size("toy-convnet", 10, min(height, side), input_size)
    rows, columns = (((length - 2) // 2 - 2) // 2 for length in (height, side))
    network = Network(
        {
            "stage1": nn.Sequential(nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
            "stage2": nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        },
        channels=[32, 64],
        pool=partial(torch.flatten, start_dim=1),
        num_features=64 * rows * columns,
        num_outputs=num_outputs,
        dropout=share("dropout", dropout),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def _double_convolution(inputs: int, outputs: int, norm: str, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_convolution(inputs, outputs, norm, stride=stride),
        *_convolution(outputs, outputs, norm, stride=1),
    )


def _convolution(inputs: int, outputs: int, norm: str, *, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    normalisation = nn.BatchNorm2d(outputs) if norm == "batch" else nn.GroupNorm(GROUPS, outputs)
    return convolution, normalisation, nn.ReLU()


def _pixels(input_size: InputSize) -> int:
    channels, height, width = input_size
    return channels * height * width
