from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import harness
from harness.base import checksums
from harness.base.errors import InputError
from harness.contract.registry import Registry
from harness.models.training.assembly import Blueprint, Part
from harness.models.training.checkpoint import describe, save_checkpoint
from harness_plugins.models.timm_models import build_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

PREPROCESSING = harness.Preprocessing((3, 16, 16), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.9)


def load_checkpoint(folder: Path) -> harness.Model:
    """Load as a suite does."""
    return build_checkpoint(
        harness.ModelRequest("checkpoint", argument=str(folder), catalogue=Registry.load(blocked=()))
    )


def saved(folder: Path, objective: str = "cross_entropy", model: str = "cnn", **params: Any) -> Any:
    """Save a network of five outputs for four classes, and return it."""
    part = Part(model, params or {"width": 4})
    blueprint = Blueprint(part, Part(objective, {}), 5, PREPROCESSING, Registry.load(blocked=()))
    built = replace(blueprint.build(seed=3), num_classes=4)
    network: Any = built.classifier
    folder.mkdir()
    save_checkpoint(folder, network.eval(), describe(blueprint, built))
    return network


@pytest.fixture
def own(tmp_path: Path) -> tuple[Path, Any]:
    """A folder with a network of this package, and the network."""
    return tmp_path / "own", saved(tmp_path / "own")


@pytest.fixture
def from_timm(tmp_path: Path) -> tuple[Path, Any]:
    """A folder as timm writes it, and the model."""
    model: Any = timm.create_model("test_resnet", pretrained=False, num_classes=6, in_chans=1).eval()
    folder = tmp_path / "timm"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_resnet",
        "num_classes": 6,
        "pretrained_cfg": {"input_size": [1, 64, 64], "mean": [0.2], "std": [0.3], "crop_pct": 0.875},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(checksums.seal({**json.loads(path.read_text()), **changes})))


def test_a_changed_digit_of_a_config_is_noticed(own: tuple[Path, Any]) -> None:
    path = own[0] / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"num_classes": 4', '"num_classes": 3', 1))
    assert path.read_text() != text
    with pytest.raises(
        InputError, match=r"config.json was changed since it was written: its checksum differs"
    ):
        load_checkpoint(own[0])


def test_a_network_of_ours_survives_the_round_trip(own: tuple[Path, Any]) -> None:
    folder, network = own
    model = load_checkpoint(folder)
    assert model.preprocessing == PREPROCESSING
    assert model.num_classes == 4
    images = torch.rand(3, 3, 16, 16)
    classifier: Any = model.classifier
    assert not classifier.training
    with torch.inference_mode():
        assert torch.equal(classifier(images), network(images))


@pytest.mark.parametrize("model", ["cnn", "timm:test_resnet", "timm:test_vit", "timm:test_efficientnet"])
@pytest.mark.parametrize("objective", ["isomax", "isomaxplus"])
def test_a_model_is_loaded_whatever_its_head(tmp_path: Path, model: str, objective: str) -> None:
    params = {"width": 4} if model == "cnn" else {"pretrained": False}
    network = saved(tmp_path / "saved", objective, model, **params)
    loaded: Any = load_checkpoint(tmp_path / "saved").classifier
    images = torch.rand(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))
        penultimate = loaded.forward_head(loaded.forward_features(images), pre_logits=True)
        assert torch.equal(loaded.get_classifier()(penultimate), network(images))
    assert type(loaded.get_classifier()).__name__ in ("IsoMaxHead", "IsoMaxPlusHead")


def test_a_timm_model_survives_the_round_trip_with_its_own_preprocessing(from_timm: tuple[Path, Any]) -> None:
    folder, original = from_timm
    model = load_checkpoint(folder)
    assert model.num_classes == 6
    assert model.preprocessing == harness.Preprocessing(
        (1, 64, 64), mean=(0.2,), std=(0.3,), interpolation="bilinear", crop_pct=0.875
    )
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        features = model.classifier.forward_features(images)
        penultimate = model.classifier.forward_head(features, pre_logits=True)
        assert torch.equal(model.classifier.get_classifier()(penultimate), original(images))


def test_loading_leaves_the_global_random_state_as_it_was(
    own: tuple[Path, Any], from_timm: tuple[Path, Any]
) -> None:
    before = torch.random.get_rng_state()
    load_checkpoint(own[0])
    load_checkpoint(from_timm[0])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["best.pth", "last.pt", "epoch.ckpt", "weights.safetensors"])
def test_a_folder_with_weights_of_another_name_is_refused_with_the_command_that_converts(
    own: tuple[Path, Any], name: str
) -> None:
    folder, _ = own
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(
        harness.InputError, match=rf"has its weights in {name}.*ood-harness import .*{name} --arch"
    ):
        load_checkpoint(folder)


def test_what_is_not_a_checkpoint_folder_is_refused(own: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = own
    with pytest.raises(harness.InputError, match="is not a folder"):
        load_checkpoint(folder / "model.safetensors")
    with pytest.raises(harness.InputError, match="is not a folder"):
        load_checkpoint(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(harness.InputError, match=r"has no config\.json"):
        load_checkpoint(empty)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"builder": "mlp", "builder_params": {}},
            "missing (stages.hidden1.0.bias, stages.hidden1.0.weight, stages.hidden2.0.bias and 1 more)",
        ),
        ({"num_outputs": 9}, "2 of another shape (fc.weight (5, 16) for (9, 16), fc.bias (5,) for (9,))"),
        ({"builder": "cnnn"}, "no model named 'cnnn'. Did you mean 'cnn'?"),
        ({"builder": "os.system"}, "no model named 'os.system'"),
        ({"builder": "checkpoint:/tmp/x"}, "'checkpoint:/tmp/x' is not an architecture"),
        ({"builder_params": {"widht": 4}}, "no parameter of model cnn named 'widht'. Did you mean 'width'?"),
        (
            {"objective": {"name": "isomx", "params": {}}},
            "no objective named 'isomx'. Did you mean 'isomax'?",
        ),
        (
            {"objective": {"name": "isomaxplus", "params": {}}},
            "keys 2 missing (fc.distance_scale, fc.prototypes); 2",
        ),
        ({"pretrained_cfg": {}}, "does not describe a model: KeyError: 'input_size'"),
        ({"weights_digest": "0" * 32}, "is damaged: its digest is not the one in config.json"),
    ],
)
def test_a_config_that_does_not_fit_our_weights_is_one_line(
    own: tuple[Path, Any], changes: dict[str, Any], message: str
) -> None:
    folder, _ = own
    edit(folder, **changes)
    with pytest.raises(harness.HarnessError) as caught:
        load_checkpoint(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "test_resnt"}, "no timm architecture named 'test_resnt'. Nearest: test_resnet"),
        ({"architecture": "test_vit"}, "do not fit the architecture: keys"),
        ({"architecture": "local-dir:/tmp"}, "no timm architecture named 'local-dir:/tmp'"),
        ({"num_classes": 7}, "2 of another shape (fc.weight (6, 96) for (7, 96), fc.bias (6,) for (7,))"),
        ({"model_args": {"checkpoint_path": "/x.pth"}}, "model_args has the argument 'checkpoint_path'"),
        ({"model_args": {"no_such": 1}}, "does not describe a model: TypeError"),
        ({"architecture": None}, "config.json names no architecture. Add"),
    ],
)
def test_a_config_that_does_not_fit_a_timm_model_is_one_line(
    from_timm: tuple[Path, Any], changes: dict[str, Any], message: str
) -> None:
    folder, _ = from_timm
    edit(folder, **changes)
    with pytest.raises(harness.HarnessError) as caught:
        load_checkpoint(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_an_object_is_refused(own: tuple[Path, Any]) -> None:
    folder, _ = own
    (folder / "config.json").write_text("[1]")
    with pytest.raises(harness.InputError, match=r"holds a list\. It must be a JSON object"):
        load_checkpoint(folder)


def test_weights_that_are_not_safetensors_are_refused(from_timm: tuple[Path, Any]) -> None:
    folder, _ = from_timm
    (folder / "model.safetensors").write_bytes(b"\x80\x04 a pickle by another name")
    with pytest.raises(harness.InputError, match=r"cannot read .*model\.safetensors"):
        load_checkpoint(folder)
