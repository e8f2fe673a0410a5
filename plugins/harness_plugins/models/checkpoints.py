"""A model as a folder: config.json says what it is, model.safetensors holds its weights.

The configuration has timm's keys, so a folder downloaded from the hub is read as it is; `builder` marks a
network of this package. Pickles are refused, because to open one is to run it.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load, save

import harness
from harness_plugins.models.configuration import preprocessing_from
from harness_plugins.models.networks import build_network
from harness_plugins.models.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from harness_plugins.models.networks import Network
    from harness_plugins.models.timm_factory import Parts

BUILDER = "harness_plugins.networks"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
# What timm and torch raise for a configuration that makes no sense.
BUILDING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
GEOMETRY = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
# Arguments with which timm would read weights from elsewhere or wrap the model.
FORBIDDEN_ARGUMENTS = frozenset(
    {
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "features_only",
    }
)


def load_checkpoint(folder: Path, *, device: str = "cpu") -> harness.Model:
    """Load the folder's model in eval mode onto `device`, with the preprocessing that its config states.

    Reads config.json and model.safetensors and no other file. Raises HarnessError, one line, for a folder
    with pickles only, for damaged files, and for weights that do not fit, naming the first keys.
    """
    _refuse_unreadable(folder)
    config = _read_config(folder / CONFIG)
    try:
        classifier, preprocessing, num_classes = _from_config(config)
    except BUILDING_ERRORS as error:
        raise harness.InputError(
            f"{folder / CONFIG} does not describe a model: {type(error).__name__}: {_one_line(error)}"
        ) from None
    weights = _read_weights(folder / WEIGHTS, config.get("weights_digest"))
    _fill(classifier, weights, folder / WEIGHTS)
    return harness.Model(opened(classifier, device, name=str(folder)), preprocessing, num_classes)


def save_checkpoint(folder: Path, network: nn.Module, config: Mapping[str, Any]) -> None:
    """Write the network and its config into an existing folder, flushed to the disk."""
    weights = save({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()})
    described = {**config, "weights_digest": _digest(weights)}
    _write(folder / WEIGHTS, weights)
    _write(folder / CONFIG, (json.dumps(described, indent=2) + "\n").encode())


def own_config(
    name: str,
    params: Mapping[str, Any],
    preprocessing: harness.Preprocessing,
    *,
    network: Network,
    num_classes: int,
) -> dict[str, Any]:
    """Describe one of this package's networks with timm's keys and those that rebuild it.

    `num_classes` counts the classes of the training data; `num_outputs`, the logits, may be more.
    """
    geometry = {key: getattr(preprocessing, key) for key in GEOMETRY}
    return {
        "architecture": name,
        "num_classes": num_classes,
        "num_features": network.num_features,
        "pretrained_cfg": {**geometry, "num_classes": num_classes},
        "builder": BUILDER,
        "network": name,
        "network_params": dict(params),
        "num_outputs": network.num_classes,
    }


def opened(classifier: nn.Module, device: str, *, name: str) -> Any:
    """Return the classifier in eval mode on its device; InputError where it is not a harness.Classifier."""
    if not isinstance(classifier, harness.Classifier):
        raise harness.InputError(
            f"the model {name!r} lacks forward_features, forward_head or get_classifier. Choose another"
        )
    return classifier.eval().to(device)


def _from_config(config: Mapping[str, Any]) -> Parts:
    builder = config.get("builder")
    if builder is None:
        return _from_timm(config)
    if builder != BUILDER:
        raise harness.InputError(f"no builder named {builder!r}. Valid: {BUILDER}, or none for a timm model")
    preprocessing = preprocessing_from(config["pretrained_cfg"])
    with seeded(0):
        network = build_network(
            config["network"], preprocessing.input_size, config["num_outputs"], config["network_params"]
        )
    return network, preprocessing, int(config["num_classes"])


def _from_timm(config: Mapping[str, Any]) -> Parts:
    from harness_plugins.models.timm_factory import create

    arguments = dict(config.get("model_args") or {})
    for key in sorted(FORBIDDEN_ARGUMENTS & arguments.keys()):
        raise harness.InputError(f"model_args has {key!r}, which a checkpoint may not set. Remove it")
    stated = config.get("pretrained_cfg") or {}
    channels = stated.get("input_size", (3,))[0]
    if channels != 3:
        arguments.setdefault("in_chans", channels)
    if "num_classes" in config:
        arguments.setdefault("num_classes", config["num_classes"])
    return create(config["architecture"], arguments, stated=stated)


def _refuse_unreadable(folder: Path) -> None:
    if not folder.is_dir():
        raise harness.InputError(
            f"the checkpoint {folder} is not a folder. Give one with {CONFIG} and {WEIGHTS}"
        )
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise harness.InputError(
                f"the checkpoint {folder} has only pickled weights ({', '.join(pickles)}), which are "
                "refused because opening a pickle can run code. Convert: safetensors.torch.save_file("
                f"torch.load({pickles[0]!r}, weights_only=True), {WEIGHTS!r})"
            )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise harness.InputError(
                f"the checkpoint {folder} has no {name}. It needs {CONFIG} and {WEIGHTS}"
            )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise harness.InputError(f"cannot read {path}: {_one_line(error)}") from None
    if not isinstance(config, dict):
        raise harness.InputError(f"{path} holds a {type(config).__name__}. It must be a JSON object")
    return config


def _read_weights(path: Path, expected: str | None) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
        if expected is not None and _digest(content) != expected:
            raise harness.InputError(
                f"{path} is damaged: its digest is not the one in {CONFIG}. Fetch it again"
            )
        return load(content)
    except (OSError, SafetensorError) as error:
        raise harness.InputError(f"cannot read {path}: {_one_line(error)}. Fetch it again") from None


def _fill(classifier: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = classifier.state_dict()
    faults = {
        "missing": sorted(own.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - own.keys()),
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ],
    }
    found = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in faults.items() if keys]
    if found:
        raise harness.InputError(
            f"{path} does not fit the architecture in {CONFIG}: keys {'; '.join(found)}. Name the "
            "architecture and num_classes that the weights were trained with"
        )
    classifier.load_state_dict(weights)


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
