"""Checkpoints as timm and people write them: the peer is what timm builds of the same folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.models import save_for_hf

import harness
from harness_plugins.models.timm_models import build_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

FLAT = {
    "architecture": "test_resnet",
    "num_classes": 6,
    "num_features": 96,
    "input_size": [3, 64, 64],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "labels": ["a", "b", "c", "d", "e", "f"],
}


def network(name: str = "test_resnet", **arguments: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(name, **{"num_classes": 6, **arguments}).eval()


def written(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {key: value.contiguous().clone() for key, value in weights.items()}, folder / "model.safetensors"
    )
    return folder


def load(folder: Path, **asked: Any) -> harness.Model:
    return build_checkpoint(harness.ModelRequest("checkpoint", argument=str(folder), **asked))


def same_logits(model: harness.Model, peer: Any, size: tuple[int, ...] = (3, 64, 64)) -> bool:
    images = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    classifier: Any = model.classifier
    with torch.inference_mode():
        return torch.equal(classifier(images), peer(images))


def as_timm_reads(folder: Path) -> tuple[Any, dict[str, Any]]:
    peer: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return peer, resolve_data_config(model=peer)  # type: ignore[no-untyped-call]


def test_the_flat_config_of_timm_before_2023_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "flat", FLAT, network().state_dict())
    model, (peer, config) = load(folder), as_timm_reads(folder)
    assert model.preprocessing == harness.Preprocessing(
        (3, 64, 64),
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
        config["crop_pct"],
        config["crop_mode"],
    )
    assert model.preprocessing.input_size == tuple(config["input_size"])
    assert (model.preprocessing.source, model.preprocessing.assumed) == ("config.json", ())
    assert model.class_names == tuple("abcdef")
    assert same_logits(model, peer)


def test_a_config_that_states_a_part_names_what_is_assumed(tmp_path: Path) -> None:
    config = {"architecture": "test_resnet", "num_classes": 6, "mean": [0.1] * 3, "std": [0.2] * 3}
    model = load(written(tmp_path / "part", config, network().state_dict()))
    assert model.preprocessing.mean == (0.1,) * 3
    assert model.preprocessing.assumed == ("input_size", "interpolation", "crop_pct")
    bare = {"architecture": "test_resnet", "num_classes": 6}
    own = load(written(tmp_path / "bare", bare, network().state_dict())).preprocessing
    assert own.source == "defaults of the architecture"
    assert set(own.assumed) == {"input_size", "mean", "std", "interpolation", "crop_pct"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [123.675, 116.28, 103.53]}, "on the scale of 0 to 255"),
        ({"std": [-0.2, 0.2, 0.2]}, "std (-0.2, 0.2, 0.2) must be above 0"),
        ({"crop_pct": 0}, "crop_pct is 0.0"),
        ({"crop_mode": "centre"}, "no crop_mode named 'centre'"),
        ({"std": [float("nan")] * 3}, "std (nan, nan, nan) must be finite"),
        ({"input_size": [3, 64]}, "input_size (3, 64) must be three whole numbers"),
        ({"labels": ["a", "b"]}, "has 2 label_names for 6 classes"),
    ],
)
def test_a_config_that_cannot_be_meant_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = written(tmp_path / "wrong", FLAT | changes, network().state_dict())
    with pytest.raises(harness.InputError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("safe", [False, True, "both"])
def test_a_folder_that_timm_saved_is_taken(tmp_path: Path, safe: Any) -> None:
    original = network()
    save_for_hf(
        original, str(tmp_path / "saved"), model_config={"num_classes": 6, "label_names": list("abcdef")},
        safe_serialization=safe,
    )  # fmt: skip
    model = load(tmp_path / "saved")
    assert same_logits(model, original)
    assert model.class_names == tuple("abcdef")
    assert model.preprocessing.input_size == (3, 160, 160)
    assert model.preprocessing.source == "config.json"


def test_a_pickle_of_more_than_tensors_is_not_opened(tmp_path: Path) -> None:
    folder = written(tmp_path / "whole", FLAT, {})
    (folder / "model.safetensors").unlink()
    torch.save(network(), folder / "pytorch_model.bin")
    with pytest.raises(harness.InputError, match=r"holds Python objects.*torch\.save\(model\.state_dict"):
        load(folder)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net.backbone."])
def test_the_prefixes_of_trainers_are_removed(tmp_path: Path, prefix: str) -> None:
    original = network()
    weights = {prefix + key: value for key, value in original.state_dict().items()}
    assert same_logits(load(written(tmp_path / "prefixed", FLAT, weights)), original)


def test_weights_outside_the_network_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original = network()
    weights = {f"model.{key}": value for key, value in original.state_dict().items()}
    weights["criterion.weight"] = torch.ones(6)
    assert same_logits(load(written(tmp_path / "trained", FLAT, weights)), original)
    assert "1 keys outside the network are left out: criterion.weight" in caplog.text


def test_a_network_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    own = network().state_dict()
    weights = {f"{prefix}.{key}": value for prefix in ("model", "ema") for key, value in own.items()}
    with pytest.raises(harness.InputError, match=r"hold the network 2 times, under 'ema\.' and 'model\.'"):
        load(written(tmp_path / "twice", FLAT, weights))


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    original = network()
    weights = {k: v for k, v in original.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(weights) < len(original.state_dict())
    assert same_logits(load(written(tmp_path / "old", FLAT, weights)), original)


def test_weights_of_the_original_code_are_translated_by_timm(tmp_path: Path) -> None:
    original = network("test_vit")
    weights = original.state_dict()
    linear = weights["patch_embed.proj.weight"]
    weights["patch_embed.proj.weight"] = linear.reshape(len(linear), -1)  # as CLIP and MoCo store it
    config = {"architecture": "test_vit", "num_classes": 6, "pretrained_cfg": {"input_size": [3, 160, 160]}}
    assert same_logits(load(written(tmp_path / "vit", config, weights)), original, (3, 160, 160))


def test_an_architecture_of_one_size_is_built_for_the_stated_size(tmp_path: Path) -> None:
    original = network("test_vit", img_size=96)
    stated = {"input_size": [3, 96, 96], "fixed_input_size": True}
    config = {"architecture": "test_vit", "num_classes": 6, "pretrained_cfg": stated}
    folder = written(tmp_path / "vit", config, original.state_dict())
    model, (peer, _) = load(folder), as_timm_reads(folder)
    assert same_logits(model, peer, (3, 96, 96))
    assert same_logits(model, original, (3, 96, 96))


def test_the_number_of_classes_and_of_channels_is_that_of_the_weights_unless_it_is_stated(
    tmp_path: Path,
) -> None:
    original = network()
    bare = {"architecture": "test_resnet"}
    model = load(written(tmp_path / "bare", bare, original.state_dict()))
    assert model.num_classes == 6
    assert same_logits(model, original)
    grey = network(in_chans=1)
    found = load(written(tmp_path / "grey", bare, grey.state_dict()))
    assert found.preprocessing.input_size == (1, 160, 160)
    assert same_logits(found, grey, (1, 160, 160))
    wrong = {"architecture": "test_resnet", "num_classes": 5}
    with pytest.raises(harness.InputError, match=r"2 of another shape \(fc\.weight \(6, 96\) for \(5, 96\)"):
        load(written(tmp_path / "wrong", wrong, original.state_dict()))
