"""From a file of weights to a checkpoint folder that the harness and timm read alike."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.config import resolve_data_config

import harness
from harness import cli
from harness_plugins.models.timm_models import build_checkpoint

MEAN, STD = ("0.1", "0.2", "0.3"), ("0.4", "0.5", "0.6")


def network(name: str = "test_resnet", **arguments: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(name, **{"num_classes": 6, **arguments}).eval()


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ood-harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


def load(folder: Path | str) -> harness.Model:
    return build_checkpoint(harness.ModelRequest("checkpoint", argument=str(folder)))


def logits(network: Any, size: int = 64, channels: int = 3) -> torch.Tensor:
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found: torch.Tensor = network(images)
    return found


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(())}}}},
        lambda state: {"net": {f"_orig_mod.{key}": value for key, value in state.items()}},
        lambda state: {f"model.{key}": value.half() for key, value in state.items()},
    ],
)
def test_a_state_dictionary_becomes_a_folder_that_the_harness_and_timm_read_alike(
    tmp_path: Path, wrap: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original = network()
    wrapped = wrap(original.state_dict())
    torch.save(wrapped, tmp_path / "best.pth")
    if any(value.dtype == torch.float16 for value in wrapped.values() if isinstance(value, torch.Tensor)):
        original = original.half().float()
    stated = ["--size", 64, "--mean", *MEAN, "--std", *STD, "--interpolation", "bicubic", "--crop-pct", 0.9]
    status = call(
        "import", "best.pth", "--arch", "test_resnet", *stated, "-o", "net", monkeypatch=monkeypatch
    )
    output = capfd.readouterr()
    assert status == 0, output.err
    text = "64 px, bicubic, crop .9 (center), mean .1 .2 .3, std .4 .5 .6, from the command line"
    assert output.out == f"net: test_resnet, 6 classes, {text}\n"
    assert output.err == ""
    model = load("net")
    assert model.preprocessing == harness.Preprocessing(
        (3, 64, 64), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), interpolation="bicubic", crop_pct=0.9
    )
    assert (model.preprocessing.source, model.preprocessing.assumed) == ("config.json", ())
    peer: Any = timm.create_model("local-dir:net", pretrained=True).eval()
    assert torch.equal(logits(model.classifier), logits(original))
    assert torch.equal(logits(peer), logits(original))
    config = resolve_data_config(model=peer)  # type: ignore[no-untyped-call]
    assert {key: config[key] for key in ("interpolation", "crop_pct", "crop_mode")} == {
        "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
    }  # fmt: skip
    assert tuple(config["mean"]) == (0.1, 0.2, 0.3)


def test_bare_safetensors_and_names_of_classes_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(network().state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\nemu\nfox\n")
    given = ("net.safetensors", "--arch", "test_resnet", "--labels", "names.txt", "-o", "net")
    assert call("import", *given, monkeypatch=monkeypatch) == 0
    assert load("net").class_names == ("ant", "bee", "cat", "dog", "emu", "fox")


def test_what_nobody_states_is_said_at_once_and_again_when_the_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(network().state_dict(), tmp_path / "best.pth")
    assert (
        call(
            "import", "best.pth", "--arch", "test_resnet", "--size", 64, "-o", "net", monkeypatch=monkeypatch
        )
        == 0
    )
    output = capfd.readouterr()
    assert (
        "changed by the command line: input_size (not stated: mean, std, interpolation, crop_pct)"
        in output.out
    )
    assert "nothing states mean, std, interpolation, crop_pct" in output.err
    assert load("net").preprocessing.assumed == ("mean", "std", "interpolation", "crop_pct")


def test_a_network_of_one_size_and_a_grey_one_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit, grey = network("test_vit", img_size=96), network(in_chans=1)
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    torch.save(grey.state_dict(), tmp_path / "grey.bin")
    assert (
        call("import", "vit.pt", "--arch", "test_vit", "--size", 96, "-o", "vit", monkeypatch=monkeypatch)
        == 0
    )
    assert torch.equal(logits(load("vit").classifier, 96), logits(vit, 96))
    assert torch.equal(
        logits(timm.create_model("local-dir:vit", pretrained=True).eval(), 96), logits(vit, 96)
    )
    means = ("--size", 28, "--mean", *("0.13",) * 3, "--std", *("0.3",) * 3)
    assert (
        call("import", "grey.bin", "--arch", "test_resnet", *means, "-o", "grey", monkeypatch=monkeypatch)
        == 0
    )
    model = load("grey")
    assert model.preprocessing.input_size == (1, 28, 28)
    assert model.preprocessing.mean == pytest.approx((0.13,))
    assert torch.equal(logits(model.classifier, 28, 1), logits(grey, 28, 1))


class Trainer:
    """What a pickle must not bring back to life."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["absent.pth", "--arch", "test_resnet"], "there is no file 'absent.pth'"),
        (["best.pth", "--arch", "test_resnt"], "no timm architecture named 'test_resnt'. Nearest: test_resnet"),
        (["best.pth", "--arch", "test_vit"], "the weights of best.pth do not fit the architecture: keys"),
        (["best.pth", "--arch", "test_resnet", "--num-classes", 7], "2 of another shape (fc.weight (6, 96) for"),
        (["best.pth", "--arch", "test_resnet", "--labels", "two.txt"], "two.txt has 2 names for 6 classes"),
        (["best.pth", "--arch", "test_resnet", "--mean", 123, 116, 103], "on the scale of 0 to 255"),
        (["best.pth", "--arch", "test_resnet", "--crop-pct", 0], "crop_pct is 0.0"),
        (["whole.pth", "--arch", "test_resnet"], "holds Python objects beside tensors"),
        (["list.pth", "--arch", "test_resnet"], "holds a list, not a state dictionary"),
        (["text.pth", "--arch", "test_resnet"], "text.pth holds Python objects beside tensors, whose opening can run"),
        (["two.txt", "--arch", "test_resnet"], "has no suffix of a file of weights. Valid: .safetensors, .bin"),
        (["part.pth", "--arch", "test_resnet"], "1 missing (fc.bias)"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_folder(
    tmp_path: Path,
    given: list[object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    state = network().state_dict()
    torch.save(state, tmp_path / "best.pth")
    torch.save({"model": state, "trainer": Trainer()}, tmp_path / "whole.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({key: value for key, value in state.items() if key != "fc.bias"}, tmp_path / "part.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "two.txt").write_text("a\nb\n")
    assert call("import", *given, "-o", "net", monkeypatch=monkeypatch) == 2
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("net").exists()


def test_a_folder_that_is_not_empty_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(network().state_dict(), tmp_path / "best.pth")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine.txt").write_text("kept")
    assert call("import", "best.pth", "--arch", "test_resnet", "-o", "net", monkeypatch=monkeypatch) == 2
    assert "is there already and is not empty" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["mine.txt"]
