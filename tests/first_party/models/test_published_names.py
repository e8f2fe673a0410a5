"""Checkpoints of the IsoMax papers' code: its names of weights, and a forward pass written from the papers.

ResNet-110 and DenseNet-BC-100 with k = 12, under three losses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_networks import (
    Shapes,
    State,
    densenet_features,
    densenet_shapes,
    drawn,
    head_logits,
    head_shapes,
    resnet_features,
    resnet_shapes,
)

import harness
from harness import cli
from harness_plugins.models.published_names import densenet_names, resnet_names
from harness_plugins.models.timm_models import build_checkpoint

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
