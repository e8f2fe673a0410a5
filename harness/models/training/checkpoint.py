"""A model as a folder: config.json describes it, model.safetensors holds its weights.

The configuration has timm's keys, so a folder downloaded from the hub can be read. A config with `builder` is rebuilt
from the installed plugins, with any head. Pickles of more than tensors are refused: opening them can run code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.base import checksums, errors
from harness.base.cache import sync
from harness.base.errors import HarnessError, InputError
from harness.base.inside import DataFolder
from harness.contract.preprocessing import Preprocessing
from harness.contract.protocols import Classifier
from harness.models.training.assembly import BUILDING_ERRORS, Blueprint, Part
from harness.models.training.state import storable
from harness.models.training.weights import (
    PICKLES,
    SAFE,
    UnreadableError,
    load_weights,
    parsed,
    read_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from harness.contract.protocols import Catalogue
    from harness.contract.specs import Model

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ASSUMED = "assumed"  # in a config: the values of the preprocessing that nobody stated when it was written
EPOCHS = "epochs"  # in a config: the digests of the weights of kept epochs; their folder
PICKLED = "pytorch_model.bin"  # of tensors alone: timm's save_for_hf writes it by default
GEOMETRY = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
FACTS = (
    "objective", "recipe", "recipe_digest", "data_digest", "outliers", "threads", "seed", "epoch",
    "validation_accuracy",
)  # fmt: skip


def load_checkpoint(
    folder: Path,
    *,
    catalogue: Catalogue,
    device: str = "cpu",
    epoch: int | None = None,
    unmarked: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Model] | None = None,
) -> Model:
    """Load the folder's model in eval mode onto `device`, with the preprocessing that its config states.

    Reads only config.json and model.safetensors, or pytorch_model.bin with tensors alone; a link may lead to the blobs
    of the same repository. With `epoch` the weights are those after that epoch of its training, if they were kept (a
    recipe's `snapshots`). `unmarked` builds a network from a config without `builder`, and loads the weights into it.
    Raises HarnessError, one line, for a folder with pickles only, damaged files, a builder that is not installed,
    and weights that do not fit (with the first keys).
    """
    _refuse_unreadable(folder)
    config = _read_config(folder / CONFIG)
    weights = _read_weights(folder, config) if epoch is None else _read_epoch(folder, config, epoch)
    try:
        if "builder" in config or unmarked is None:
            model = _rebuilt(config, catalogue)
            network: Any = model.classifier
            load_weights(network, weights, name="the weights")
        else:
            model = unmarked(config, weights)
    except HarnessError as error:
        raise type(error)(f"the checkpoint {folder}: {error}") from None
    except BUILDING_ERRORS as error:
        raise InputError(f"{folder / CONFIG} does not describe a model: {errors.describe(error)}") from None
    facts = {key: config[key] for key in FACTS if key in config} | ({} if epoch is None else {"epoch": epoch})
    if config.get(ASSUMED):
        model = replace(model, preprocessing=replace(model.preprocessing, assumed=tuple(config[ASSUMED])))
    return replace(
        model,
        classifier=opened(model.classifier, device, name=str(folder)),
        facts=facts,
        outliers=tuple(config.get("outliers", ())),
        trained_on=str(config.get("data_digest", "")),
        **_class_names(config, model, folder / CONFIG),
    )


def save_checkpoint(folder: Path, network: nn.Module, config: Mapping[str, Any]) -> None:
    """Write the network and its config into an existing folder, flushed to the disk."""
    from safetensors.torch import save

    weights = save(storable(network.state_dict()))
    described = checksums.seal({**config, "weights_digest": digest_of(weights)})
    _write(folder / WEIGHTS, weights)
    _write(folder / CONFIG, (json.dumps(described, indent=2) + "\n").encode())


def describe(blueprint: Blueprint, model: Model) -> dict[str, Any]:
    """Describe a network with timm's keys and the keys that are needed to rebuild it.

    `num_classes` counts the classes of the training data, 0 for an encoder. `num_outputs` is the number of outputs that
    the architecture is built with, before the objective's head replaces its own; it may be larger.
    """
    classifier: Any = model.classifier
    geometry = {key: getattr(model.preprocessing, key) for key in GEOMETRY}
    return {
        "architecture": blueprint.architecture.name.partition(":")[2] or blueprint.architecture.name,
        "num_classes": model.num_classes,
        "num_features": getattr(classifier, "num_features", None),
        "pretrained_cfg": {**geometry, "num_classes": model.num_classes},
        "builder": blueprint.architecture.name,
        "builder_params": dict(blueprint.architecture.params),
        "num_outputs": blueprint.num_outputs,
        "objective": {"name": blueprint.objective.name, "params": dict(blueprint.objective.params)},
    }


def opened(classifier: Any, device: str, *, name: str) -> Any:
    """Return the classifier in eval mode on its device. Raises InputError if it is not a Classifier."""
    if not isinstance(classifier, Classifier):
        raise InputError(
            f"the model {name!r} lacks forward_features, forward_head or get_classifier. Choose another"
        )
    module: Any = classifier
    return module.eval().to(device)


def _rebuilt(config: Mapping[str, Any], catalogue: Catalogue) -> Model:
    stated = config["pretrained_cfg"]
    size = tuple(int(length) for length in stated["input_size"])
    rest = {key: stated[key] for key in ("interpolation", "crop_pct", "crop_mode") if key in stated}
    preprocessing = Preprocessing(
        (size[0], size[1], size[2]),
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        source=CONFIG,
        **rest,
    )
    objective = config["objective"]
    blueprint = Blueprint(
        Part(str(config["builder"]), dict(config["builder_params"])),
        Part(str(objective["name"]), dict(objective["params"])),
        int(config["num_outputs"]),
        preprocessing,
        catalogue,
    )
    return replace(blueprint.build(seed=0), num_classes=int(config["num_classes"]))


def _refuse_unreadable(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"the checkpoint {folder} is not a folder. Give one with {CONFIG} and {WEIGHTS}")
    data = DataFolder(folder)
    for name in (CONFIG, WEIGHTS, PICKLED):
        data.stat(folder / name)
    has_weights = any((folder / name).is_file() for name in (WEIGHTS, PICKLED))
    if not has_weights:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (SAFE, *PICKLES))
        if others:
            raise InputError(
                f"the checkpoint {folder} has its weights in {', '.join(others)}, not in {WEIGHTS}. Convert them: "
                f"ood-harness import {folder / others[0]} --arch NAME -o FOLDER"
            )
    for name, is_there in ((CONFIG, (folder / CONFIG).is_file()), (WEIGHTS, has_weights)):
        if not is_there:
            raise InputError(f"the checkpoint {folder} has no {name}. It needs {CONFIG} and {WEIGHTS}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text)
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {errors.one_line(error)}") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {errors.one_line(error)}. Fetch it again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path} holds a {type(config).__name__}. It must be a JSON object")
    if "weights_digest" not in config:  # it is not the harness's own
        return config
    try:
        return checksums.unsealed(text)
    except ValueError as error:
        raise InputError(
            f"{path} was changed since it was written: {error}. If you changed it, remove its line {checksums.KEY!r}; "
            "else fetch it again"
        ) from None


def _read_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the folder's weights: safetensors, or what timm's save_for_hf writes by default."""
    path = folder / WEIGHTS
    return _verified(path, config.get("weights_digest")) if path.is_file() else read_weights(folder / PICKLED)


def _read_epoch(folder: Path, config: Mapping[str, Any], epoch: int) -> dict[str, Tensor]:
    kept = config.get(EPOCHS) or {}
    if str(epoch) not in kept:
        raise InputError(
            f"the checkpoint {folder} has no weights of epoch {epoch}. Kept: {', '.join(kept) or 'none'}. A recipe's "
            "snapshots say which are kept"
        )
    DataFolder(folder).stat(epoch_file(folder, epoch))
    return _verified(epoch_file(folder, epoch), kept[str(epoch)])


def epoch_file(folder: Path, epoch: int) -> Path:
    """Return the file of the weights after one epoch."""
    return folder / EPOCHS / f"{epoch:05}{SAFE}"


def _verified(path: Path, expected: str | None) -> dict[str, Tensor]:
    """Read safetensors whose digest is the expected one; None expects none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {errors.one_line(error)}") from None
    if expected is not None and digest_of(content) != expected:
        raise InputError(f"{path} is damaged: its digest is not the one in {CONFIG}. Fetch it again")
    return parsed(content, path)


def _class_names(config: Mapping[str, Any], model: Model, path: Path) -> dict[str, Any]:
    """Return a model's names of its classes, by output, if the config states them. timm keeps them in several places.

    timm's `label_descriptions` are other names of the same classes.
    """
    inner = config.get("pretrained_cfg") or {}
    places = (config.get("label_names"), inner.get("label_names"), config.get("labels"))
    given = next((names for names in places if names), None)
    if given is None or not model.num_classes:  # an encoder has no classes
        return {}
    if isinstance(given, dict):
        given = [given.get(str(number)) for number in range(len(given))]
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise InputError(f"label_names in {path} must be a list of names, one per class")
    if len(given) != model.num_classes:
        raise InputError(
            f"{path} has {len(given)} label_names for {model.num_classes} classes. Give one per class, in the order "
            "of the outputs"
        )
    described = config.get("label_descriptions") or inner.get("label_descriptions")
    synonyms = [str(described.get(name, "")) for name in given] if isinstance(described, dict) else None
    return {"class_names": tuple(given), "class_synonyms": tuple(synonyms) if synonyms else None}


def digest_of(content: bytes) -> str:
    """Digest the content of a file of weights."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync(path)
