"""The CIFAR networks of the IsoMax papers' code: names of their weights, and forward passes from the papers.

The names are those of a state dictionary of the authors' models, with the "first part" of a loss as `classifier`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def convolution(name: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)


def batch_norm(name: str, channels: int) -> Shapes:
    for part in BATCH_NORM:
        yield f"{name}.{part}", () if part == "num_batches_tracked" else (channels,)


def resnet_shapes(blocks: int) -> Shapes:
    yield from convolution("conv1", 3, 16, 3)
    yield from batch_norm("bn1", 16)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            yield from convolution(f"{name}.conv1", inputs, width, 3)
            yield from batch_norm(f"{name}.bn1", width)
            yield from convolution(f"{name}.conv2", width, width, 3)
            yield from batch_norm(f"{name}.bn2", width)
            inputs = width


def densenet_shapes(layers: int, growth: int) -> Shapes:
    width = 2 * growth
    yield from convolution("conv1", 3, width, 3)
    for block in (1, 2, 3):
        for layer in range(layers):
            name = f"block{block}.layer.{layer}"
            yield from batch_norm(f"{name}.bn1", width)
            yield from convolution(f"{name}.conv1", width, 4 * growth, 1)
            yield from batch_norm(f"{name}.bn2", 4 * growth)
            yield from convolution(f"{name}.conv2", 4 * growth, growth, 3)
            width += growth
        if block < 3:
            yield from batch_norm(f"trans{block}.bn1", width)
            yield from convolution(f"trans{block}.conv1", width, width // 2, 1)
            width //= 2
    yield from batch_norm("bn1", width)


def head_shapes(objective: str, features: int, classes: int) -> Shapes:
    if objective == "softmax":
        yield from (("classifier.weights", (classes, features)), ("classifier.bias", (classes,)))
    else:
        yield "classifier.prototypes", (classes, features)
    if objective == "isomaxplus":
        yield "classifier.distance_scale", (1,)


def drawn(shapes: Shapes) -> State:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith(".weight")):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan = max(1, torch.Size(shape[1:]).numel())
            state[name] = torch.randn(shape, generator=generator) / fan**0.5
    return state


def normalised(state: State, name: str, maps: torch.Tensor) -> torch.Tensor:
    weight, bias, mean, variance = (state[f"{name}.{part}"][:, None, None] for part in BATCH_NORM[:4])
    return weight * (maps - mean) / (variance + 1e-5).sqrt() + bias


def convolved(state: State, name: str, maps: torch.Tensor, stride: int = 1) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(maps, weight, stride=stride, padding=weight.shape[-1] // 2)


def resnet_features(state: State, images: torch.Tensor, blocks: int) -> torch.Tensor:
    maps = normalised(state, "bn1", convolved(state, "conv1", images)).relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            name, halves = f"layer{stage}.{block}", stage > 1 and block == 0
            residual = convolved(state, f"{name}.conv1", maps, stride=2 if halves else 1)
            residual = normalised(state, f"{name}.bn1", residual).relu()
            residual = normalised(state, f"{name}.bn2", convolved(state, f"{name}.conv2", residual))
            if halves:  # option A: every second pixel, and a quarter of the new width in zeros on both sides
                quarter = torch.zeros(len(maps), residual.shape[1] // 4, *residual.shape[2:])
                maps = torch.cat([quarter, maps[:, :, ::2, ::2], quarter], dim=1)
            maps = (residual + maps).relu()
    return maps.mean(dim=(2, 3))


def densenet_features(state: State, images: torch.Tensor, layers: int) -> torch.Tensor:
    maps = convolved(state, "conv1", images)
    for block in (1, 2, 3):
        for layer in range(layers):
            name = f"block{block}.layer.{layer}"
            new = convolved(state, f"{name}.conv1", normalised(state, f"{name}.bn1", maps).relu())
            new = convolved(state, f"{name}.conv2", normalised(state, f"{name}.bn2", new).relu())
            maps = torch.cat([maps, new], dim=1)
        if block < 3:
            name = f"trans{block}"
            maps = convolved(state, f"{name}.conv1", normalised(state, f"{name}.bn1", maps).relu())
            maps = maps.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    return normalised(state, "bn1", maps).relu().mean(dim=(2, 3))


def head_logits(state: State, features: torch.Tensor) -> torch.Tensor:
    if "classifier.weights" in state:
        return features @ state["classifier.weights"].T + state["classifier.bias"]
    prototypes, scale = state["classifier.prototypes"], torch.ones(1)
    if "classifier.distance_scale" in state:
        scale = state["classifier.distance_scale"].abs()
        features = features / features.norm(dim=1, keepdim=True)
        prototypes = prototypes / prototypes.norm(dim=1, keepdim=True)
    return -scale * (features[:, None] - prototypes).norm(dim=2)
