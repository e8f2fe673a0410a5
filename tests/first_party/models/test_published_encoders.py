"""Checkpoints of self-supervised training, in the form in which their authors publish them, become encoders.

The published files are not at hand. The forms are those of the code that wrote them: what torch.save was given.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.models.training.weights import read_weights
from harness_plugins.models.timm_models import build_checkpoint, rebuild_from_timm

Tensors = dict[str, Any]
STATED = ("--size", "32", "--interpolation", "bilinear", "--crop-pct", "0.875")


def resnet(seed: int = 0) -> nn.Module:
    """Torchvision's bottleneck network, whose names all six codes share, with two blocks a stage instead of 3 to 6."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [2, 2, 2, 2])
    network.fc = nn.Identity()
    return network.eval()


def under(prefix: str, state: Tensors) -> Tensors:
    return {f"{prefix}{key}": value for key, value in state.items()}


def head(*sizes: int) -> Tensors:
    """The weights of a projection head of linear layers."""
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes))).state_dict()


def momentum_sgd() -> dict[str, Any]:
    return {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}


def backbone(state: Tensors) -> Tensors:
    return dict(state)


def whole(state: Tensors) -> Tensors:
    model = {**under("module.backbone.", state), **under("module.projector.", head(2048, 16, 16))}
    return {"epoch": 1000, "model": model, "optimizer": momentum_sgd()}


def moco(state: Tensors, projection: Tensors) -> Tensors:
    average = resnet(seed=9).state_dict()
    model = {
        **under("module.encoder_q.", state | projection),
        **under("module.encoder_k.", average | projection),
        "module.queue": torch.zeros(128, 8),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    return {"epoch": 200, "arch": "resnet50", "state_dict": model, "optimizer": momentum_sgd()}


def moco_v1(state: Tensors) -> Tensors:
    return moco(state, {"fc.weight": torch.zeros(128, 2048), "fc.bias": torch.zeros(128)})


def moco_v2(state: Tensors) -> Tensors:
    return moco(state, under("fc.", head(2048, 2048, 128)))


def simsiam(state: Tensors) -> Tensors:
    model = {
        **under("module.encoder.", state | under("fc.", head(2048, 16, 16))),
        **under("module.predictor.", head(16, 8, 16)),
    }
    return {"epoch": 100, "arch": "resnet50", "state_dict": model, "optimizer": momentum_sgd()}


def swav(state: Tensors) -> Tensors:
    heads = {**under("projection_head.", head(2048, 16, 8)), "prototypes.weight": torch.zeros(30, 8)}
    return under("module.", state | heads)


def vicregl(state: Tensors) -> Tensors:
    """The whole training: its optimizer's groups hold a function of the script."""
    saved = whole(state)
    saved["model"] |= under("module.maps_projector.", head(2048, 16, 16))
    saved["optimizer"]["param_groups"][0]["weight_decay_filter"] = exclude_bias_and_norm
    return saved


def exclude_bias_and_norm(p: torch.Tensor) -> bool:
    return p.ndim == 1


FORMS: dict[str, Callable[[Tensors], Tensors]] = {
    "barlowtwins": backbone,
    "barlowtwins, whole": whole,
    "moco v1": moco_v1,
    "moco v2": moco_v2,
    "simsiam": simsiam,
    "swav": swav,
    "vicreg": backbone,
    "vicreg, whole": whole,
    "vicregl": backbone,
    "vicregl, whole": vicregl,
}


@pytest.fixture(scope="module")
def original() -> nn.Module:
    return resnet()


def imported(file: Path, *options: str, arch: str = "resnet26") -> Any:
    out = str(file.with_name("encoder"))
    return CliRunner().invoke(app, ["import", str(file), "--arch", arch, *STATED, *options, "-o", out])


def penultimate(folder: Path, images: torch.Tensor) -> torch.Tensor:
    model = build_checkpoint(harness.ModelRequest("checkpoint", argument=str(folder)))
    assert model.num_classes == 0
    network: Any = model.classifier
    with torch.inference_mode():
        found: torch.Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_features_are_those_of_the_trained_encoder(
    form: str,
    original: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = types.ModuleType("__main__")
    script.exclude_bias_and_norm = exclude_bias_and_norm  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:  # the function is of the script that was run
        patched.setitem(sys.modules, "__main__", script)
        patched.setattr(exclude_bias_and_norm, "__module__", "__main__")
        torch.save(FORMS[form](original.state_dict()), tmp_path / "pretrain.pth.tar")
    result = imported(tmp_path / "pretrain.pth.tar", "--num-classes", "0")
    assert result.exit_code == 0, result.output
    assert ": resnet26, an encoder, 32 px, bilinear" in result.stdout
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = original(images)
    torch.testing.assert_close(penultimate(tmp_path / "encoder", images), expected, rtol=1e-5, atol=1e-5)
    assert ("not its moving average 'module.encoder_k.'" in caplog.text) == form.startswith("moco")
    assert ("heads are left out: " in caplog.text) == form.startswith(("moco", "simsiam", "swav"))


def test_a_convnext_of_vicregl_has_the_names_of_its_original_code(tmp_path: Path) -> None:
    dims, depths = (16, 24, 32, 40), (1, 1, 2, 1)
    generator = torch.Generator().manual_seed(2)

    def weights(name: str, *shape: int) -> Tensors:
        drawn = {"weight": shape, "bias": shape[:1]}
        return {f"{name}.{key}": torch.randn(of, generator=generator) for key, of in drawn.items()}

    state = weights("downsample_layers.0.0", dims[0], 3, 4, 4) | weights("downsample_layers.0.1", dims[0])
    for stage, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
        if stage:
            before = dims[stage - 1]
            state |= weights(f"downsample_layers.{stage}.0", before)
            state |= weights(f"downsample_layers.{stage}.1", dim, before, 2, 2)
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            state |= weights(f"{at}.dwconv", dim, 1, 7, 7) | weights(f"{at}.norm", dim)
            state |= weights(f"{at}.pwconv1", 4 * dim, dim) | weights(f"{at}.pwconv2", dim, 4 * dim)
            state[f"{at}.gamma"] = torch.randn(dim, generator=generator)
    state |= weights("norm", dims[-1])
    torch.save(state, tmp_path / "convnext.pth")
    narrow = {"dims": dims, "depths": depths}  # the command has no option for widths
    config = {"architecture": "convnext_atto", "num_classes": 0, "model_args": narrow}
    model = rebuild_from_timm(config, read_weights(tmp_path / "convnext.pth"))
    found: Any = model.classifier
    assert model.num_classes == 0
    assert torch.equal(found.stem[0].weight, state["downsample_layers.0.0.weight"])
    assert torch.equal(
        found.stages[2].blocks[1].mlp.fc1.weight.flatten(1), state["stages.2.1.pwconv1.weight"]
    )
    assert torch.equal(found.head.norm.bias, state["norm.bias"])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s, ["--arch", "resnet18"], "of another shape"),
        (
            lambda s: {key.replace("layer1.", "stage1."): value for key, value in s.items()},
            [],
            "missing (layer1.0.bn1.bias, layer1.0.bn1.running_mean, layer1.0.bn1.running_var",
        ),
        (
            lambda s: {key: value for key, value in s.items() if not key.startswith("layer4.1.conv3")},
            [],
            "keys 1 missing (layer4.1.conv3.weight)",
        ),
        (
            lambda s: s | {"layer4.2.conv3.weight": torch.zeros(3)},
            [],
            "keys 1 unexpected (layer4.2.conv3.weight)",
        ),
    ],
)
def test_a_file_of_another_network_is_one_line_with_the_keys(
    change: Callable[[Tensors], Tensors],
    options: list[str],
    message: str,
    original: nn.Module,
    tmp_path: Path,
) -> None:
    torch.save(change(dict(original.state_dict())), tmp_path / "other.pth")
    result = imported(tmp_path / "other.pth", "--num-classes", "0", *options)
    assert isinstance(result.exception, harness.InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "encoder").exists()


def test_an_encoder_that_is_taken_for_a_classifier_is_told_of_num_classes(
    original: nn.Module, tmp_path: Path
) -> None:
    torch.save(original.state_dict(), tmp_path / "backbone.pth")
    result = imported(tmp_path / "backbone.pth")
    assert isinstance(result.exception, harness.InputError)
    assert "keys 2 missing (fc.bias, fc.weight)" in str(result.exception)
    assert "num_classes is 0 for an encoder" in str(result.exception)


def test_a_file_with_another_function_is_refused(tmp_path: Path) -> None:
    torch.save({"model": resnet().state_dict(), "filter": whole}, tmp_path / "own.pth")
    result = imported(tmp_path / "own.pth", "--num-classes", "0")
    assert isinstance(result.exception, harness.InputError)
    assert "own.pth holds Python objects beside tensors" in str(result.exception)
    assert "Save the weights alone: torch.save(model.state_dict(), ...)" in str(result.exception)
