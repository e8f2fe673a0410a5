from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness_plugins.models.cifar_networks import densenet_bc, resnet_cifar
from harness_plugins.models.network import InputSize, Network

CIFAR_NETWORKS = {"resnet-cifar": resnet_cifar, "densenet-bc": densenet_bc}

# Grey and RGB, even and odd sides, and the smallest image that each network takes.
CASES: list[tuple[str, InputSize, dict[str, Any], int]] = [
    ("resnet-cifar", (3, 32, 32), {}, 64),
    ("resnet-cifar", (1, 13, 9), {"depth": 14}, 64),
    ("resnet-cifar", (3, 5, 5), {"depth": 8}, 64),
    ("densenet-bc", (3, 32, 32), {}, 342),
    ("densenet-bc", (1, 13, 9), {"depth": 16, "growth_rate": 5, "dropout": 0.2}, 20),
    ("densenet-bc", (3, 8, 8), {"depth": 10, "growth_rate": 4}, 9),
]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def resnet_parameters(channels: int, outputs: int, depth: int) -> int:
    """Weights of 3x3 convolutions, two numbers a channel of BatchNorm, the head."""
    total = 9 * channels * 16 + 2 * 16
    convolutions = (depth - 2) // 3  # in a stage
    for first_inputs, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * first_inputs * width + (convolutions - 1) * 9 * width**2 + convolutions * 2 * width
    return total + 65 * outputs


def densenet_parameters(channels: int, outputs: int, depth: int, growth: int) -> int:
    """Sum over a block's layers in closed form: layer i sees `width` + i `growth` channels."""
    layers = (depth - 4) // 6
    width = 2 * growth
    total = 9 * channels * width
    for block in range(3):
        seen = layers * width + growth * layers * (layers - 1) // 2
        total += seen * (2 + 4 * growth) + layers * (8 * growth + 36 * growth**2)
        width += layers * growth
        total += 2 * width  # the BatchNorm of the transition, or the last one
        if block < 2:
            total += width * (width // 2)
            width //= 2
    return total + (width + 1) * outputs


@pytest.mark.parametrize(
    ("name", "params", "published"),
    [
        ("resnet-cifar", {"depth": 20}, 269_722),
        ("resnet-cifar", {"depth": 110}, 1_727_962),
        ("densenet-bc", {"depth": 100, "growth_rate": 12}, 769_162),
    ],
)
def test_a_network_has_the_published_number_of_parameters(
    name: str, params: dict[str, Any], published: int
) -> None:
    assert parameters(CIFAR_NETWORKS[name]((3, 32, 32), 10, **params)) == published


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [8, 20, 32])
def test_the_parameters_of_a_resnet_follow_from_its_depth(channels: int, depth: int) -> None:
    network = resnet_cifar((channels, 28, 28), 7, depth=depth)
    assert parameters(network) == resnet_parameters(channels, 7, depth)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("depth", "growth"), [(10, 1), (22, 5), (40, 12)])
def test_the_parameters_of_a_densenet_follow_from_its_depth_and_growth(
    channels: int, depth: int, growth: int
) -> None:
    network = densenet_bc((channels, 28, 28), 7, depth=depth, growth_rate=growth)
    assert parameters(network) == densenet_parameters(channels, 7, depth, growth)


@pytest.mark.parametrize(("name", "depth"), [("resnet-cifar", 26), ("densenet-bc", 28)])
def test_depth_counts_the_convolutions_and_the_head(name: str, depth: int) -> None:
    network = CIFAR_NETWORKS[name]((3, 32, 32), 10, depth=depth)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth


@pytest.mark.parametrize("side", [32, 28])
@pytest.mark.parametrize(
    ("name", "widths"), [("resnet-cifar", [16, 16, 32, 64]), ("densenet-bc", [24, 216, 300, 342])]
)
def test_feature_info_names_the_stem_and_three_stages_that_halve_the_resolution(
    name: str, widths: list[int], side: int
) -> None:
    network: Network = CIFAR_NETWORKS[name]((3, side, side), 10).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for info in network.feature_info:
        network.get_submodule(info["module"]).register_forward_hook(
            lambda _module, _inputs, output, key=info["module"]: shapes.update({key: tuple(output.shape)})
        )
    with torch.inference_mode():
        network(torch.rand(2, 3, side, side))
    assert shapes == {
        f"stages.{stage}": (2, width, resolution, resolution)
        for stage, width, resolution in zip(
            ["stem", "stage1", "stage2", "stage3"], widths, [side, side, side // 2, side // 4], strict=True
        )
    }
    assert [info["num_chs"] for info in network.feature_info] == widths


@pytest.mark.parametrize(("name", "size", "params", "num_features"), CASES)
def test_a_network_is_a_classifier_whose_head_maps_the_mean_over_space_to_logits(
    name: str, size: InputSize, params: dict[str, Any], num_features: int
) -> None:
    network = CIFAR_NETWORKS[name](size, 7, **params).eval()
    assert isinstance(network, harness.Classifier)
    images = torch.rand(3, *size)

    with torch.inference_mode():
        features = network.forward_features(images)
        penultimate = network.forward_head(features, pre_logits=True)
        logits = network.forward_head(features)

        assert network.num_features == num_features
        assert penultimate.shape == (3, num_features)
        assert penultimate.min() >= 0
        torch.testing.assert_close(penultimate, features.flatten(2).sum(-1) / features[0, 0].numel())
        assert logits.shape == (3, 7)
        torch.testing.assert_close(network(images), logits, rtol=0, atol=0)
        torch.testing.assert_close(network.get_classifier()(penultimate), logits, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "size", "params", "num_features"), CASES)
def test_a_seed_fixes_the_network_its_logits_and_its_gradients(
    name: str, size: InputSize, params: dict[str, Any], num_features: int
) -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(5)
        network = CIFAR_NETWORKS[name](size, 7, **params)
        images = torch.rand(2, *size)
        trained = network(images)
        trained.square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        return [trained, network.eval()(images), *network.state_dict().values(), *gradients]

    for first, second in zip(run(), run(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "size", "params", "num_features"), CASES)
def test_a_state_dict_restores_the_logits(
    name: str, size: InputSize, params: dict[str, Any], num_features: int
) -> None:
    images = torch.rand(2, *size)
    network, other = (CIFAR_NETWORKS[name](size, 7, **params) for _ in range(2))
    network(images)  # in training mode: moves the running statistics
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other.eval()(images), network.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet-cifar", (1, 5, 5)), ("resnet-cifar", (1, 6, 5)), ("densenet-bc", (1, 8, 8))]
)
def test_one_image_of_the_smallest_size_can_be_trained_on(name: str, size: InputSize) -> None:
    assert CIFAR_NETWORKS[name](size, 2)(torch.rand(1, *size)).isfinite().all()


def test_the_shortcut_of_a_widening_block_is_every_second_pixel_and_zero_channels() -> None:
    block = resnet_cifar((3, 32, 32), 10).get_submodule("stages.stage2.0").eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)  # leaves the shortcut alone
    maps = torch.arange(2 * 16 * 7 * 7.0).reshape(2, 16, 7, 7) - 400

    with torch.inference_mode():
        output = block(maps)

    assert output.shape == (2, 32, 4, 4)
    for row in range(4):
        for column in range(4):
            expected = maps[:, :, 2 * row, 2 * column].clamp(min=0)
            torch.testing.assert_close(output[:, 8:24, row, column], expected, rtol=0, atol=0)
    assert not output[:, :8].any()
    assert not output[:, 24:].any()


@pytest.mark.parametrize(("place", "inputs"), [("stages.stage1.0", 16), ("stages.stage2.0", 16)])
def test_a_basic_block_adds_two_convolutions_to_its_shortcut(place: str, inputs: int) -> None:
    block = resnet_cifar((3, 32, 32), 10).get_submodule(place).train()
    first, second = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    maps = torch.randn(4, inputs, 8, 8)
    stride = 8 // first(maps).shape[-1]

    def normalised(values: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0, keepdim=True)
        return (values - mean) / (variance + 1e-5).sqrt()

    with torch.inference_mode():
        expected = normalised(second(normalised(first(maps)).relu()))
        before = (expected.shape[1] - inputs) // 2
        expected[:, before : before + inputs] += maps[:, :, ::stride, ::stride]
        torch.testing.assert_close(block(maps), expected.relu(), rtol=1e-4, atol=1e-4)


def test_a_dense_block_keeps_its_input_and_every_layer_appends_its_maps() -> None:
    block = densenet_bc((3, 32, 32), 10, depth=22, growth_rate=5).get_submodule("stages.stage1").eval()
    assert isinstance(block, nn.Sequential)
    maps = torch.randn(2, 10, 8, 8)
    with torch.inference_mode():
        output = block(maps)
        until_second = block[:2](maps)
    assert output.shape == (2, 10 + 3 * 5, 8, 8)
    torch.testing.assert_close(output[:, :10], maps, rtol=0, atol=0)
    torch.testing.assert_close(output[:, :20], until_second, rtol=0, atol=0)


def test_dropout_of_a_densenet_follows_every_convolution_but_the_first() -> None:
    network = densenet_bc((3, 32, 32), 10, depth=16, dropout=0.25)
    kinds = [
        type(module) for module in network.stages.modules() if isinstance(module, nn.Conv2d | nn.Dropout)
    ]
    assert kinds == [nn.Conv2d] + [nn.Conv2d, nn.Dropout] * 14
    assert {module.p for module in network.stages.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert network.state_dict().keys() == densenet_bc((3, 32, 32), 10, depth=16).state_dict().keys()


def test_dropout_acts_in_training_only() -> None:
    images = torch.rand(4, 3, 16, 16)
    network = densenet_bc((3, 16, 16), 10, depth=16, dropout=0.5)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", ["resnet-cifar", "densenet-bc"])
def test_convolutions_start_he_normal_over_their_outputs(name: str) -> None:
    torch.manual_seed(0)
    network = CIFAR_NETWORKS[name]((3, 32, 32), 10)
    scaled = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            scaled.append(module.weight.detach().flatten() * (fan_out / 2) ** 0.5)
    weights = torch.cat(scaled)
    assert float(weights.mean()) == pytest.approx(0, abs=0.01)
    assert float(weights.std()) == pytest.approx(1, abs=0.01)
    assert float(weights.abs().gt(1.96).float().mean()) == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(
    ("name", "size", "params", "message"),
    [
        *(
            (
                "resnet-cifar",
                (3, 32, 32),
                {"depth": depth},
                f"depth is {depth!r}. Give 6n + 2 for a whole number n of at least 1, as in depth = 20",
            )
            for depth in (18, 2, -4, 20.0, "20", True)
        ),
        *(
            (
                "densenet-bc",
                (3, 32, 32),
                {"depth": depth},
                f"depth is {depth!r}. Give 6n + 4 for a whole number n of at least 1, as in depth = 100",
            )
            for depth in (121, 4, -2, 100.0, "100", None)
        ),
        (
            "densenet-bc",
            (3, 32, 32),
            {"growth_rate": 0},
            "growth_rate is 0. Give a whole number of at least 1",
        ),
        ("densenet-bc", (3, 32, 32), {"dropout": 1.0}, "dropout is 1.0. Give a share from 0 to below 1"),
        (
            "resnet-cifar",
            (3, 32, 4),
            {},
            "the network 'resnet-cifar' needs images of at least 5x5 pixels. input_size is (3, 32, 4)",
        ),
        (
            "densenet-bc",
            (1, 7, 32),
            {},
            "the network 'densenet-bc' needs images of at least 8x8 pixels. input_size is (1, 7, 32)",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_valid(
    name: str, size: InputSize, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(harness.InputError) as caught:
        CIFAR_NETWORKS[name](size, 2, **params)
    assert str(caught.value) == message
