"""Converts a file of weights to a checkpoint folder, which a suite names and timm reads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError, InputError, describe, one_line
from harness.contract.registry import names_where
from harness.models.training.assembly import BUILDING_ERRORS, Blueprint, Part
from harness.models.training.checkpoint import ASSUMED, GEOMETRY, save_checkpoint
from harness.models.training.checkpoint import describe as describe_network
from harness.models.training.weights import load_weights, of_network, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from harness.contract.preprocessing import Preprocessing
    from harness.contract.protocols import Catalogue
    from harness.contract.specs import Model
    from harness.models.training.recipe import Recipe

    Tensors = dict[str, Tensor]
    Translate = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

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

    `architecture` is one that a family of folders rebuilds, such as timm's.

    Raises HarnessError, one line, for a file that cannot be read without running its code, for weights that do not fit
    the architecture (with the first keys), and for a folder that is not empty.
    """
    _require_places(weights, folder)
    config: dict[str, Any] = {"architecture": architecture}
    if options.num_classes is not None:
        config["num_classes"] = options.num_classes
    size = (options.size, options.size) if options.size is not None else None
    _refuse_plugins_own(architecture, catalogue)
    with _named(weights, architecture):
        model = _rebuild(catalogue)(config, read_weights(weights), size=size)
    return _written(model, folder, options, partial(_described, architecture))


def import_trained(
    weights: Path, recipe: Recipe, folder: Path, options: ImportOptions, catalogue: Catalogue
) -> Model:
    """Write the folder of a recipe's network, with its objective's head and the file's weights; return the network.

    The names of weights are the network's own, or those of the published code that its plugin translates. Raises
    HarnessError as `import_weights` does.
    """
    _require_places(weights, folder)
    with _named(weights, recipe.model):
        found = read_weights(weights)
        translate = catalogue.get("model", recipe.model).spec.translate
        asked = options.num_classes or recipe.num_outputs
        outputs = asked or _num_outputs(_blueprint(recipe, 2, catalogue), found, translate)
        blueprint = _blueprint(recipe, outputs, catalogue)
        model = blueprint.build(seed=0)
        model = replace(model, num_classes=outputs if model.num_classes else 0)  # 0: an encoder
        network: Any = model.classifier
        load_weights(network, found, name="the weights", convert=translate)
    return _written(model, folder, options, partial(describe_network, blueprint))


def _blueprint(recipe: Recipe, outputs: int, catalogue: Catalogue) -> Blueprint:
    return Blueprint(
        Part(recipe.model, recipe.model_params),
        Part(recipe.objective, recipe.objective_params),
        outputs,
        recipe.preprocessing.opened() if recipe.preprocessing else None,
        catalogue,
    )


def _num_outputs(blueprint: Blueprint, weights: Tensors, translate: Translate | None) -> int:
    """Return the number of outputs that the weights of the last layer have; the blueprint's own if it is not found."""
    network: Any = blueprint.build(seed=0).classifier
    found = of_network(weights, network.state_dict(), "the weights")
    renamed = translate(found) if translate is not None else found
    head = network.get_classifier()
    (place,) = [name for name, module in network.named_modules() if module is head]
    lengths = {
        len(value) for key, value in renamed.items() if key.startswith(f"{place}.") and value.ndim == 2
    }
    return lengths.pop() if len(lengths) == 1 else blueprint.num_outputs


def _require_places(weights: Path, folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and is not empty. Give -o a new folder")
    if not weights.is_file():
        raise InputError(f"there is no file {str(weights)!r}. Give the file of the weights")


@contextmanager
def _named(weights: Path, architecture: str) -> Iterator[None]:
    """Name the file and the architecture in errors of reading and building."""
    try:
        yield
    except HarnessError as error:
        text = str(error)
        named = text.startswith("the weights")
        raise type(error)(
            text.replace("the weights", f"the weights of {weights}", 1) if named else text
        ) from None
    except BUILDING_ERRORS as error:
        raise InputError(f"the architecture {architecture!r} cannot be built: {describe(error)}") from None


def _written(
    model: Model, folder: Path, options: ImportOptions, described: Callable[[Model], dict[str, Any]]
) -> Model:
    """Write the folder of a model, with what is known of it beside its weights."""
    labels = _labels(options.labels) if options.labels is not None else None
    if labels is not None and len(labels) != model.num_classes:
        raise InputError(
            f"{options.labels} has {len(labels)} names for {model.num_classes} classes. Give one per line"
        )
    model = replace(model, preprocessing=_stated(model.preprocessing, options), class_names=labels)
    folder.mkdir(parents=True, exist_ok=True)
    network: Any = model.classifier
    save_checkpoint(folder, network, _with_extras(described(model), model))
    return model


def _with_extras(config: dict[str, Any], model: Model) -> dict[str, Any]:
    if model.class_names is not None:
        config["label_names"] = list(model.class_names)
    if model.preprocessing.assumed:
        config[ASSUMED] = list(model.preprocessing.assumed)
    return config


def _refuse_plugins_own(architecture: str, catalogue: Catalogue) -> None:
    """Raise InputError for an architecture of a plugin, whose parameters a recipe states."""
    own = names_where(catalogue, "model", lambda spec: spec.architecture and not spec.argument)
    if architecture in own:
        raise InputError(
            f"{architecture!r} is an architecture of a plugin. Name a recipe that states its parameters, its objective "
            "and its preprocessing: --recipe NAME or FILE.toml"
        )


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
    return config


def _labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(
            f"cannot read the labels {str(path)!r}: {why}. Give --labels a text file in UTF-8, one name per line"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())
