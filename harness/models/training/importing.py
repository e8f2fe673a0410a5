"""Converts a file of weights to a checkpoint folder, which a suite names and timm reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError, InputError, describe, one_line
from harness.contract.registry import names_where
from harness.models.training.assembly import BUILDING_ERRORS
from harness.models.training.checkpoint import ASSUMED, GEOMETRY, save_checkpoint
from harness.models.training.weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.contract.preprocessing import Preprocessing
    from harness.contract.protocols import Catalogue
    from harness.contract.specs import Model

BY = "the command line"
# What timm's configuration has beside the preprocessing, if the network states it.
_KEPT = ("fixed_input_size", "pool_size", "first_conv", "classifier")


@dataclass(frozen=True)
class ImportOptions:
    """What is known of the weights beside their architecture; None: the architecture's own, or that of the weights."""

    num_classes: int | None = None
    size: int | None = None  # pixels, the side of a square
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    labels: Path | None = None  # a text file, one name per class, in the order of the outputs


def import_weights(
    weights: Path, architecture: str, folder: Path, options: ImportOptions, catalogue: Catalogue
) -> Model:
    """Write the folder of a network with the file's weights, and return the network.

    Raises HarnessError, one line, for a file that cannot be read without running its code, for weights that do not fit
    the architecture (with the first keys), and for a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and is not empty. Give -o a new folder")
    if not weights.is_file():
        raise InputError(f"there is no file {str(weights)!r}. Give the file of the weights")
    labels = _labels(options.labels) if options.labels is not None else None
    config: dict[str, Any] = {"architecture": architecture}
    if options.num_classes is not None:
        config["num_classes"] = options.num_classes
    size = (options.size, options.size) if options.size is not None else None
    try:
        model = _rebuild(catalogue)(config, read_weights(weights), size=size)
    except HarnessError as error:
        raise type(error)(str(error).replace("the weights", f"the weights of {weights}", 1)) from None
    except BUILDING_ERRORS as error:
        raise InputError(f"the architecture {architecture!r} cannot be built: {describe(error)}") from None
    if labels is not None and len(labels) != model.num_classes:
        raise InputError(
            f"{options.labels} has {len(labels)} names for {model.num_classes} classes. Give one per line"
        )
    model = replace(model, preprocessing=_stated(model.preprocessing, options), class_names=labels)
    folder.mkdir(parents=True, exist_ok=True)
    network: Any = model.classifier
    save_checkpoint(folder, network, _described(architecture, model))
    return model


def _rebuild(catalogue: Catalogue) -> Callable[..., Model]:
    """Return the function of the family of folders that reads timm's configurations."""
    able = names_where(catalogue, "model", lambda spec: spec.rebuild is not None)
    if not able:
        raise InputError("no installed plugin builds networks for foreign weights. Install or unblock one")
    rebuild: Callable[..., Model] = catalogue.get("model", able[0]).spec.rebuild
    return rebuild


def _stated(own: Preprocessing, options: ImportOptions) -> Preprocessing:
    channels = own.input_size[0]
    given: dict[str, Any] = {"interpolation": options.interpolation, "crop_pct": options.crop_pct}
    for key, values in (("mean", options.mean), ("std", options.std)):
        is_grey = values is not None and channels == 1
        given[key] = (sum(values) / len(values),) if is_grey and values else values
    if options.size is not None:
        given["input_size"] = (channels, options.size, options.size)
    return own.overridden({key: value for key, value in given.items() if value is not None}, by=BY)


def _described(architecture: str, model: Model) -> dict[str, Any]:
    network: Any = model.classifier
    own = getattr(network, "pretrained_cfg", {})
    stated = {
        **{key: getattr(model.preprocessing, key) for key in GEOMETRY},
        **{key: own[key] for key in _KEPT if key in own},
        "num_classes": model.num_classes,
    }
    config: dict[str, Any] = {
        "architecture": architecture.partition(".")[0],
        "num_classes": model.num_classes,
        "num_features": getattr(network, "num_features", None),
        "pretrained_cfg": stated,
    }
    if model.class_names is not None:
        config["label_names"] = list(model.class_names)
    if model.preprocessing.assumed:
        config[ASSUMED] = list(model.preprocessing.assumed)
    return config


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the labels {path}: {one_line(error)}") from None
    return tuple(line.strip() for line in lines if line.strip())
