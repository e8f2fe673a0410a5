from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness.contract.registry import Registry
from harness_plugins.models.cifar_networks import densenet_bc, resnet_cifar
from harness_plugins.models.network import InputSize, Network
from harness_plugins.models.networks import cnn, mlp, toy_convnet

BUILDERS = {
    "mlp": mlp,
    "cnn": cnn,
    "toy-convnet": toy_convnet,
    "resnet-cifar": resnet_cifar,
    "densenet-bc": densenet_bc,
}
CASES: list[tuple[str, InputSize, dict[str, Any], int]] = [
    ("mlp", (1, 8, 8), {"hidden": [32, 16]}, 16),
    ("cnn", (3, 12, 12), {"width": 8}, 32),
    ("toy-convnet", (1, 28, 28), {}, 1600),
    ("resnet-cifar", (3, 16, 16), {"depth": 8}, 64),
    ("densenet-bc", (1, 16, 16), {"depth": 10, "growth_rate": 4}, 9),
]


def build_network(name: str, size: InputSize, num_outputs: int, params: dict[str, Any]) -> Network:
    return BUILDERS[name](size, num_outputs, **params)


def test_every_architecture_of_this_package_has_a_case_and_builds_the_same_network(
    catalogue: Registry,
) -> None:
    own = {
        offered.spec.name: offered.spec
        for offered in catalogue.offers("model")
        if offered.spec.architecture and not offered.spec.argument
    }
    assert {case[0] for case in CASES} == set(own)
    for name, size, params, _ in CASES:
        request = harness.ModelRequest(name, num_outputs=7, input_size=size)
        with harness.seeded(0):
            model = own[name].build(request, **params)
        with harness.seeded(0):
            network = build_network(name, size, 7, params)
        assert (model.num_classes, model.preprocessing.input_size) == (7, size)
        built: Any = model.classifier
        assert {k: v.tolist() for k, v in built.state_dict().items()} == {
            k: v.tolist() for k, v in network.state_dict().items()
        }


def test_an_architecture_outside_a_recipe_says_where_it_belongs(catalogue: Registry) -> None:
    build = catalogue.get("model", "cnn").spec.build
    with pytest.raises(
        harness.InputError, match=r"'cnn' is an architecture without weights. Train it: name a"
    ):
        build(harness.ModelRequest("cnn"))
    with pytest.raises(harness.InputError, match=r"its recipe must state one: \[preprocessing\] input_size"):
        build(harness.ModelRequest("cnn", num_outputs=2))


@pytest.mark.parametrize(("name", "size", "params", "num_features"), CASES)
def test_a_network_is_a_classifier_whose_head_maps_penultimate_features_to_logits(
    name: str, size: InputSize, params: dict[str, Any], num_features: int
) -> None:
    network = build_network(name, size, 7, params).eval()
    assert isinstance(network, harness.Classifier)

    features = network.forward_features(torch.rand(3, *size))
    penultimate = network.forward_head(features, pre_logits=True)

    assert penultimate.shape == (3, num_features)
    assert network.num_features == num_features
    logits = network.forward_head(features)
    assert logits.shape == (3, 7)
    torch.testing.assert_close(network.get_classifier()(penultimate), logits, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "size", "params", "num_features"), CASES)
def test_feature_info_names_submodules_with_that_many_channels(
    name: str, size: InputSize, params: dict[str, Any], num_features: int
) -> None:
    network = build_network(name, size, 7, params).eval()
    shapes: dict[str, int] = {}
    for info in network.feature_info:
        module = network.get_submodule(info["module"])
        module.register_forward_hook(
            lambda _module, _inputs, output, key=info["module"]: shapes.update({key: output.shape[1]})
        )
    network(torch.rand(2, *size))
    assert shapes == {info["module"]: info["num_chs"] for info in network.feature_info}


def test_the_toy_convnet_starts_glorot_uniform_with_zero_biases() -> None:
    network = build_network("toy-convnet", (1, 28, 28), 10, {})
    limit = (6 / (1600 + 10)) ** 0.5
    weight = network.fc.weight.detach()
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.99 * limit
    assert float(weight.std()) == pytest.approx(limit / 3**0.5, rel=0.02)
    assert not any(value.any() for key, value in network.named_parameters() if key.endswith("bias"))


@pytest.mark.parametrize(
    ("name", "size", "params", "message"),
    [
        ("cnn", (1, 8, 8), {"width": "3"}, "width is '3'. Give a whole number of at least 1"),
        ("mlp", (1, 8, 8), {"hidden": []}, "hidden is empty"),
        ("mlp", (1, 8, 8), {"dropout": 1}, "dropout is 1. Give a share from 0 to below 1"),
        ("toy-convnet", (1, 8, 8), {}, "needs images of at least 10x10 pixels"),
    ],
)
def test_a_wrong_network_is_refused_with_what_is_valid(
    name: str, size: InputSize, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(harness.HarnessError) as caught:
        build_network(name, size, 2, params)
    assert message in str(caught.value)


def test_the_convnet_can_have_groupnorm() -> None:
    batch, group = (cnn((1, 8, 8), 3, width=8, norm=norm) for norm in ("batch", "group"))
    for network, kind, other in (
        (batch, nn.BatchNorm2d, nn.GroupNorm),
        (group, nn.GroupNorm, nn.BatchNorm2d),
    ):
        assert sum(isinstance(module, kind) for module in network.modules()) == 6
        assert not any(isinstance(module, other) for module in network.modules())
    assert group(torch.zeros(1, 1, 8, 8)).shape == (1, 3)
    with pytest.raises(harness.HarnessError, match="no norm named 'layer'. Valid: batch, group"):
        cnn((1, 8, 8), 3, norm="layer")
    with pytest.raises(harness.InputError, match="width is 6, and GroupNorm has 4 groups"):
        cnn((1, 8, 8), 3, width=6, norm="group")
