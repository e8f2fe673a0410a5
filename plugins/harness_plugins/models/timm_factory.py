"""Builds timm's models, with seeded weights and the preprocessing of their configuration.

Importing timm takes seconds, so this module is imported only to build a timm model.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import sys
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import timm
import timm.models
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

import harness
from harness_plugins.models.configuration import STATED, preprocessing_from, require_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

PRETRAINED, DEFAULTS, CONFIG = "timm's pretrained config", "defaults of the architecture", "config.json"
# What a configuration may say about the model; the other fields say where weights are.
_FIELDS = {field.name for field in fields(timm.models.PretrainedCfg)} - {
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load", "architecture", "tag",
}  # fmt: skip


def create(name: str, arguments: Mapping[str, Any], *, seed: int | None = 0) -> harness.Model:
    """Build timm's model of that name; `arguments` are timm's own.

    Weights that are not pretrained are drawn from the seed; None uses the current random state.
    Raises InputError for an unknown name.
    """
    source = PRETRAINED if arguments.get("pretrained") else DEFAULTS
    network = _network(name, arguments, seed=seed)
    preprocessing = preprocessing_from(
        _data_config(network), in_chans=arguments.get("in_chans"), source=source
    )
    names = _names_of(network) if arguments.get("pretrained") else {}
    return harness.Model(network, preprocessing, int(network.num_classes), **names)


def rebuild(
    name: str,
    arguments: Mapping[str, Any],
    stated: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    size: tuple[int, int] | None = None,
) -> harness.Model:
    """Build the model that a checkpoint's configuration describes, as timm does, and load the weights.

    `stated` is timm's `pretrained_cfg`: what it leaves out is the architecture's. The numbers of classes and of
    channels, if they are not stated, are those of the weights. `size` is another size of images, for architectures
    that are built for one. Raises InputError for an unknown name, and for weights that do not fit.
    """
    refuse_unknown(name)
    known = {key: value for key, value in stated.items() if key in _FIELDS and value is not None}
    said = [key for key in STATED if key in known]
    if "input_size" in known:  # checked before timm builds a network for it
        require_size(known["input_size"])
    if said:
        known.setdefault("crop_mode", "center")
    if arguments.get("dynamic_img_size"):
        known["fixed_input_size"] = False
    asked = {**arguments, "pretrained_cfg_overlay": known}
    if size is not None and has_fixed_size(name):
        asked["img_size"] = size
    network = _network(name, asked)
    shapes = {"num_classes": ("classifier", 0), "in_chans": ("first_conv", 1)}
    unsaid = (
        shapes.keys() - known.keys() - arguments.keys() - ({"in_chans"} if "input_size" in known else set())
    )
    found = {key: _length(network, weights, *shapes[key]) for key in unsaid}
    built = {key: _length(network, network.state_dict(), *shapes[key]) for key in unsaid}
    if other := {key: length for key, length in found.items() if length not in (None, built[key])}:
        asked |= other
        network = _network(name, asked)
    harness.load_weights(
        network,
        weights,
        name="the weights",
        convert=partial(_converted, network),
        encoder=network.num_classes == 0,
    )
    preprocessing = preprocessing_from(
        # What is stated is not left to timm alone, which takes a crop_pct of 0 for none.
        {**_data_config(network), **{key: known[key] for key in (*STATED, "crop_mode") if key in known}},
        in_chans=asked.get("in_chans"),
        source=CONFIG if said else DEFAULTS,
        assumed=tuple(key for key in STATED if key not in said),
    )
    return harness.Model(network, preprocessing, int(network.num_classes), **_names_of(network))


def _names_of(network: Any) -> dict[str, Any]:
    """Return the names of ImageNet's classes for a network with as many outputs, as timm infers them."""
    subset = infer_imagenet_subset(network)
    if subset is None:
        return {}
    info = ImageNetInfo(subset)
    names = tuple(info.label_names())  # type: ignore[no-untyped-call]
    synonyms = tuple(info.index_to_description(number) for number in range(len(names)))
    return {"class_names": names, "class_synonyms": synonyms}


def _network(name: str, arguments: Mapping[str, Any], *, seed: int | None = 0) -> Any:
    refuse_unknown(name)
    with contextlib.nullcontext() if seed is None else harness.seeded(seed):
        return timm.create_model(name, **arguments)


def _data_config(network: Any) -> dict[str, Any]:
    config: dict[str, Any] = resolve_data_config(pretrained_cfg=network.pretrained_cfg, model=network)  # type: ignore[no-untyped-call]
    return config


def _converted(network: Any, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Translate weights of the architecture's original code to timm's names and shapes, if timm knows how."""
    code = sys.modules[type(network).__module__]
    convert = getattr(code, "checkpoint_filter_fn", None) or getattr(code, "_filter_fn", None)
    if convert is None:
        return weights
    takes_network = len(inspect.signature(convert).parameters) > 1
    converted: Mapping[str, Tensor] = convert(dict(weights), *([network] if takes_network else []))
    return converted


def _length(network: Any, weights: Mapping[str, Tensor], role: str, axis: int) -> int | None:
    """Return the length of one axis of a layer's weights, which timm names by its role; None if they have none."""
    layer = network.pretrained_cfg.get(role)
    name = layer if isinstance(layer, str) else next(iter(layer or ()), None)
    found = [value for key, value in weights.items() if f".{key}".endswith(f".{name}.weight")]
    return found[0].shape[axis] if len(found) == 1 and found[0].ndim > axis else None


def has_fixed_size(name: str) -> bool:
    """Return whether the architecture needs its image size, like transformers with position embeddings."""
    config = timm.get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def refuse_unknown(name: str) -> None:
    """Raise InputError with the nearest names unless timm knows the architecture and its tag, if any."""
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        kind, wrong, valid = "timm architecture", architecture, timm.list_models()
    elif tag and name not in timm.list_pretrained():
        kind, wrong, valid = "timm model", name, timm.list_pretrained(f"{architecture}.*")
    else:
        return
    nearest = difflib.get_close_matches(wrong, valid, n=5, cutoff=0.5)
    hint = f"Nearest: {', '.join(nearest)}" if nearest else "timm.list_models() lists them all"
    raise harness.InputError(f"no {kind} named {wrong!r}. {hint}")
