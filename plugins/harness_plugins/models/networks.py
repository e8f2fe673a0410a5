"""Small networks for small images, which satisfy harness.Classifier and are built by name.

Each is a row of stages, pooling to the penultimate features (N, D), and a linear layer to the logits (N, C).
"""

from __future__ import annotations

import inspect
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
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


def mlp(
    input_size: InputSize, num_outputs: int, *, hidden: Sequence[int] = (128, 128), dropout: float = 0.0
) -> Network:
    """Build a multilayer perceptron on the flattened pixels: linear layers with ReLU, then the head."""
    if not hidden:
        raise harness.InputError(
            "hidden is empty. Give the width of at least one layer, as in hidden = [128]"
        )
    widths = [_positive("hidden", width) for width in hidden]
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
        dropout=_share("dropout", dropout),
    )


def cnn(input_size: InputSize, num_outputs: int, *, width: int = 32, dropout: float = 0.0) -> Network:
    """Build a BatchNorm convnet: three stages of two 3x3 convolutions, D = 4 `width`.

    The stages are `width`, 2 `width` and 4 `width` wide. Stages 2 and 3 halve the resolution;
    the penultimate features are the mean over space.
    """
    channels, height, side = input_size
    _at_least("cnn", 5, min(height, side), input_size)  # below, BatchNorm could meet one value a channel
    widths = [_positive("width", width), 2 * width, 4 * width]
    return Network(
        {
            "stage1": _double_convolution(channels, widths[0], stride=1),
            "stage2": _double_convolution(widths[0], widths[1], stride=2),
            "stage3": _double_convolution(widths[1], widths[2], stride=2),
        },
        channels=widths,
        pool=partial(torch.mean, dim=(2, 3)),
        num_features=widths[2],
        num_outputs=num_outputs,
        dropout=_share("dropout", dropout),
    )


def toy_convnet(input_size: InputSize, num_outputs: int, *, dropout: float = 0.5) -> Network:
    """Build the toy network of the GEN notebook, initialised as Keras does: D = 1,600 for 28x28 images.

    Two unpadded 3x3 convolutions, 32 and 64 wide, each with ReLU and 2x2 max pooling; the penultimate
    features are the flattened map before dropout. Weights are Glorot-uniform, biases zero.
    """
    channels, height, side = input_size
    _at_least("toy-convnet", 10, min(height, side), input_size)
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
        dropout=_share("dropout", dropout),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


NETWORKS: Mapping[str, Callable[..., Network]] = MappingProxyType(
    {"mlp": mlp, "cnn": cnn, "toy-convnet": toy_convnet}
)


def build_network(name: str, input_size: InputSize, num_outputs: int, params: Mapping[str, Any]) -> Network:
    """Build the named network for images of `input_size` with `num_outputs` logits, freshly initialised.

    Raises HarnessError for an unknown name or parameter, and for a value out of range.
    """
    if name not in NETWORKS:
        raise harness.unknown_name("network", name, NETWORKS, valid_label="Valid")
    builder = NETWORKS[name]
    signature = inspect.signature(builder)
    valid = {
        key for key, parameter in signature.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY
    }
    for key in params:
        if key not in valid:
            raise harness.unknown_name(f"parameter of network {name!r}", key, valid, valid_label="Valid")
    return builder(input_size, _positive("num_outputs", num_outputs), **params)


def _double_convolution(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_convolution(inputs, outputs, stride=stride),
        *_convolution(outputs, outputs, stride=1),
    )


def _convolution(inputs: int, outputs: int, *, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _pixels(input_size: InputSize) -> int:
    channels, height, width = input_size
    return channels * height * width


def _positive(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise harness.InputError(f"{name} is {value!r}. Give a whole number of at least 1")
    return value


def _share(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise harness.InputError(f"{name} is {value!r}. Give a share from 0 to below 1")
    return float(value)


def _at_least(name: str, minimum: int, length: int, input_size: InputSize) -> None:
    if length < minimum:
        raise harness.InputError(
            f"the network {name!r} needs images of at least {minimum}x{minimum} pixels. "
            f"input_size is {input_size}"
        )
