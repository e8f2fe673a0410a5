from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import harness
from harness_plugins.models import timm_models
from harness_plugins.models.timm_models import build_checkpoint, build_timm

if TYPE_CHECKING:
    from pathlib import Path


def request(name: str, seed: int = 0) -> harness.ModelRequest:
    return harness.ModelRequest(f"timm:{name}", argument=name, seed=seed)


def state(model: harness.Model) -> dict[str, bytes]:
    network: Any = model.classifier
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


def test_the_families_say_what_follows_the_colon() -> None:
    assert {spec.name: spec.argument for spec in timm_models.harness_models()} == {
        "timm": "NAME",
        "checkpoint": "PATH",
    }


def test_a_model_without_pretrained_weights_is_drawn_from_the_seed() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build_timm(request("test_resnet", seed), pretrained=False) for seed in (1, 1, 2))
    assert state(first) == state(again)
    assert state(first) != state(other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(first.classifier, harness.Classifier)
    assert isinstance(first.classifier, torch.nn.Module)
    assert not first.classifier.training


def test_preprocessing_is_the_one_that_timm_states() -> None:
    model = build_timm(request("test_resnet"), pretrained=False)
    assert model.num_classes == 1000
    assert model.preprocessing == harness.Preprocessing(
        (3, 160, 160), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear", crop_pct=0.95
    )


def test_a_model_for_grey_images_gets_grey_images() -> None:
    model = build_timm(request("test_resnet"), pretrained=False, in_chans=1)
    assert model.preprocessing.input_size == (1, 160, 160)
    assert model.preprocessing.mean == (0.5,)
    with torch.inference_mode():
        assert model.classifier.forward_features(torch.rand(1, 1, 160, 160)).shape[0] == 1


def test_pretrained_weights_are_read_from_the_downloaded_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = timm.create_model("test_resnet", pretrained=False).eval()
    path = tmp_path / "model.safetensors"
    save_file(original.state_dict(), path)
    asked: list[tuple[str, ...]] = []

    def download(*arguments: str) -> Path:
        asked.append(arguments)
        return path

    monkeypatch.setattr(timm_models, "_download", download)
    model: Any = build_timm(request("test_resnet")).classifier
    assert asked == [("test_resnet", "timm/test_resnet.r160_in1k", "model.safetensors")]
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), original(images))


def test_a_repository_on_the_hub_is_a_checkpoint_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = timm.create_model("test_resnet", pretrained=False, num_classes=7).eval()
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 7}')
    monkeypatch.setattr(timm_models, "_download", lambda _name, _repository, file: tmp_path / file)
    model = build_timm(request("hf-hub:owner/repository"))
    assert model.num_classes == 7
    assert torch.equal(model.classifier.get_classifier().weight, original.get_classifier().weight)


def test_an_unreachable_hub_is_one_line_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(harness.InputError, match=r"http://127\.0\.0\.1:9 cannot be reached.*checkpoint:PATH"):
        build_timm(request("test_resnet"))


def test_an_architectures_own_arguments_size_it() -> None:
    model = build_timm(
        request("vit_tiny_patch16_224"), pretrained=False, patch_size=8, embed_dim=24, depth=2, num_heads=3
    )
    network: Any = model.classifier
    assert (network.num_features, len(network.blocks)) == (24, 2)
    assert network.patch_embed.proj.weight.shape == (24, 3, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dmi": 24}, "timm cannot build 'test_vit' with embed_dmi=24: "),
        (
            {"checkpoint_path": "/x.pth"},
            "timm has the argument 'checkpoint_path', which a suite or checkpoint may not",
        ),
    ],
)
def test_an_argument_that_an_architecture_lacks_or_may_not_get_is_one_line(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(harness.InputError) as caught:
        build_timm(request("test_vit"), pretrained=False, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_argument_that_the_recipe_decides_is_refused_and_not_overruled_in_silence() -> None:
    asked = harness.ModelRequest(
        "timm:test_vit", "test_vit", num_outputs=3, input_size=(1, 32, 32), pretrained=False
    )
    with pytest.raises(harness.InputError, match="'num_classes', which follows from the data"):
        build_timm(asked, num_classes=7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_resnt", "no timm architecture named 'test_resnt'. Nearest: test_resnet"),
        ("test_resnet.r160", "no timm model named 'test_resnet.r160'. Nearest: test_resnet.r160_in1k"),
        ("", "timm names no model"),
    ],
)
def test_an_unknown_model_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(harness.InputError) as caught:
        build_timm(request(name), pretrained=False)
    assert message in str(caught.value)


def test_a_checkpoint_without_a_path_is_refused() -> None:
    with pytest.raises(harness.InputError, match="checkpoint names no folder"):
        build_checkpoint(harness.ModelRequest("checkpoint"))
