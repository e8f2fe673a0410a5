"""Checkpoints of the IsoMax papers' code: its names of weights, and a forward pass written from the papers.

The names are those of a state dictionary of the authors' models: ResNet-110 and DenseNet-BC-100 with k = 12, and the
"first part" of a loss as `classifier`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import harness
from harness import cli
from harness_plugins.models.published_names import densenet_names, resnet_names
from harness_plugins.models.timm_models import build_checkpoint

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


FAMILIES: dict[str, tuple[Callable[[], Shapes], Callable[[State, torch.Tensor], torch.Tensor], int]] = {
    "resnet110": (lambda: resnet_shapes(18), lambda state, images: resnet_features(state, images, 18), 64),
    "densenet": (
        lambda: densenet_shapes(16, 12),
        lambda state, images: densenet_features(state, images, 16),
        342,
    ),
}


def published(network: str, objective: str, classes: int = 10) -> State:
    shapes, _, features = FAMILIES[network]
    return drawn(iter([*shapes(), *head_shapes(objective, features, classes)]))


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ood-harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


def loaded(folder: str) -> harness.Model:
    return build_checkpoint(harness.ModelRequest("checkpoint", argument=folder))


@pytest.mark.parametrize(
    ("data", "classes", "objective"),
    [
        ("cifar10", 10, "isomaxplus"),
        ("cifar100", 100, "softmax"),
        ("cifar100", 100, "isomax"),
        ("svhn", 10, "isomaxplus"),
    ],
)
@pytest.mark.parametrize("network", ["resnet110", "densenet"])
def test_a_checkpoint_of_the_papers_code_gives_the_logits_of_its_own_forward(
    network: str, data: str, classes: int, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = published(network, objective, classes)
    torch.save(state, "model1.pth")
    name = f"{data}-{network}-{objective}"
    assert call("import", "model1.pth", "--recipe", name, "-o", "net", monkeypatch=monkeypatch) == 0
    model = loaded("net")
    assert model.num_classes == classes
    assert model.preprocessing.input_size == (3, 32, 32)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = head_logits(state, FAMILIES[network][1](state, images))
    classifier: Any = model.classifier
    with torch.inference_mode():
        torch.testing.assert_close(classifier(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", ["resnet110", "densenet"])
def test_prefixes_wrappers_and_other_names_of_the_last_layer_are_taken(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = published(network, "softmax")
    usual = {
        f"module.{key.replace('classifier.weights', 'linear.weight').replace('classifier', 'linear')}": value
        for key, value in state.items()
    }
    torch.save({"state_dict": usual, "best_prec1": 92.6}, "resnet.th")
    torch.save(state, "plain.pth")
    recipe = ("--recipe", f"cifar10-{network}-softmax")
    assert call("import", "resnet.th", *recipe, "-o", "one", monkeypatch=monkeypatch) == 0
    assert call("import", "plain.pth", *recipe, "-o", "two", monkeypatch=monkeypatch) == 0
    one: Any = loaded("one").classifier
    two: Any = loaded("two").classifier
    for (name, value), other in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_own_names_stay_so_that_a_trained_checkpoint_can_be_imported_again() -> None:
    for translate in (resnet_names, densenet_names):
        own = {"stages.stem.0.weight": torch.ones(1), "fc.prototypes": torch.ones(1)}
        assert translate(own).keys() == own.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--recipe", "cifar10-resnet110-softmax"],
            "do not fit the architecture: keys 2 missing (fc.bias, fc.weight)",
        ),
        (["--recipe", "cifar10-densenet-isomaxplus"], "do not fit the architecture: keys"),
        (
            ["--recipe", "cifar10-resnet110-isomaxplus", "--num-classes", 7],
            "fc.prototypes (10, 64) for (7, 64)",
        ),
        (["--arch", "resnet-cifar"], "'resnet-cifar' is an architecture of a plugin. Name a recipe"),
        (["--arch", "resnet18", "--recipe", "cifar10-resnet20"], "Give either --arch or --recipe"),
        ([], "Give either --arch or --recipe"),
        (["--recipe", "cifar10-resnet11"], "no recipe named 'cifar10-resnet11'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    given: list[object], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(published("resnet110", "isomaxplus"), "model1.pth")
    assert call("import", "model1.pth", *given, "-o", "net", monkeypatch=monkeypatch) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("net").exists()
