"""Weights as people have them: read from a file without running its code, and loaded into a network as timm does.

A file may hold the weights within a dictionary (`state_dict`, `model`), and a trainer may put a prefix before each name
(`module.`, `model.`, `_orig_mod.`). The weights that fill the network completely are found; anything else is refused.
A file of self-supervised training may hold a moving average of the network and heads beside it: they are left out.
"""

from __future__ import annotations

import argparse
import logging
import pickle
from typing import TYPE_CHECKING, Any

import torch

from harness.base import errors
from harness.base.errors import InputError, shortened
from harness.models.soundness import require_sound
from harness.models.training.assembly import BUILDING_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    Tensors = dict[str, Tensor]

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar", ".th")
SAFE = ".safetensors"
# The keys under which trainers keep a network's weights. As in timm, the average over training comes first.
_WITHIN = (
    "state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "network", "weights",
)  # fmt: skip
# Of two copies of a network: the one that was trained, and its moving average (He et al., CVPR 2020).
_MOMENTUM = {"encoder_q": "encoder_k"}
_COUNTER = "num_batches_tracked"  # of BatchNorm: old checkpoints lack it, and no output depends on it

logger = logging.getLogger("ood_harness")


def _inert(*_: object) -> None:
    """Stand for a function that a file names and that is never called."""


# What files name beside tensors: timm's trainer stores its arguments, and the optimizer of VICReg's code a function.
_NAMED: list[Any] = [
    argparse.Namespace,
    *((_inert, f"{module}.exclude_bias_and_norm") for module in ("__main__", "optimizers")),
]


class UnreadableError(InputError):
    """A file exists but could not be read. The cause may be temporary."""


def read_weights(path: Path) -> Tensors:
    """Read the state dictionary of a file: safetensors, or what torch.save wrote of tensors alone.

    Raises InputError for anything else: opening a pickle of Python objects can run code.
    """
    if path.suffix not in (SAFE, *PICKLES):
        valid = ", ".join((SAFE, *PICKLES))
        raise InputError(f"{path} has no suffix of a file of weights. Valid: {valid}")
    try:
        content = path.read_bytes() if path.suffix == SAFE else None
        return parsed(content, path) if content is not None else _within(_unpickled(path), path)
    except OSError as error:
        raise UnreadableError(f"cannot read {path}: {errors.one_line(error)}") from None


def parsed(content: bytes, path: Path) -> Tensors:
    """Read the tensors of a safetensors file's content. Raises InputError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: Tensors = load(content)
    except SafetensorError as error:
        raise InputError(f"cannot read {path}: {errors.one_line(error)}. Fetch it again") from None
    return tensors


def load_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    name: object,
    convert: Callable[[Tensors], Mapping[str, Tensor]] | None = None,
    encoder: bool = False,
) -> None:
    """Fill every weight of a network. `convert` translates the names and shapes of another code's weights.

    Prefixes are removed, and weights outside the network, such as a loss's, are left out with a warning; if it is an
    encoder, so are modules that it does not have, such as a projection head. Raises InputError with the first keys that
    are missing, unexpected, or of another shape or type, and for weights that are not finite; messages call the
    weights `name`.
    """
    own = network.state_dict()
    found = of_network(weights, own, name)
    faults = _faults(found, own)
    if faults and convert is not None:
        try:
            converted = dict(convert(dict(found)))
        except BUILDING_ERRORS:  # they are not of the code that `convert` knows
            converted = found
        if not (remaining := _faults(converted, own)) or len(converted.keys() & own) > len(
            found.keys() & own
        ):
            found, faults = converted, remaining  # the faults of the better match are the ones to read
    if faults and encoder:
        found = _without_heads(found, own, name)
        faults = _faults(found, own)
    if faults:
        raise InputError(
            f"{name} do not fit the architecture: keys {'; '.join(faults)}. Name the architecture and "
            "num_classes that the weights were trained with; num_classes is 0 for an encoder without a classifier"
        )
    network.load_state_dict({**own, **found})
    require_sound(network)


def of_network(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], name: object) -> Tensors:
    """Return the weights that belong to the network, without a prefix."""
    needed = [key for key in own if not key.endswith(_COUNTER)]
    whole = [
        prefix for prefix in _prefixes(weights, needed) if all(prefix + key in weights for key in needed)
    ]
    if len(whole) > 1:
        whole = _trained(whole, name)
    if len(whole) > 1:
        raise InputError(
            f"{name} hold the network {len(whole)} times, under {' and '.join(map(repr, sorted(whole)))}. Keep one"
        )
    prefix = whole[0] if whole else _common_prefix(weights, own)
    found = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    outside = [key for key in weights if not key.startswith(prefix)]
    if outside:
        logger.warning(
            "%s: %d keys outside the network are left out: %s", name, len(outside), shortened(outside)
        )
    return found


def _trained(prefixes: list[str], name: object) -> list[str]:
    """Leave out copies that are moving averages of another one."""
    for trained, average in _MOMENTUM.items():
        averages = {prefix.replace(trained, average) for prefix in prefixes if trained in prefix}
        if left_out := averages & set(prefixes):
            shown = " and ".join(map(repr, sorted(left_out)))
            logger.warning("%s: the trained encoder is used, not its moving average %s", name, shown)
            return [prefix for prefix in prefixes if prefix not in left_out]
    return prefixes


def _without_heads(found: Tensors, own: Mapping[str, Tensor], name: object) -> Tensors:
    """Leave out modules of which the network has none, with a warning."""
    tops = {key.partition(".")[0] for key in own}
    heads = dict.fromkeys(top for key in found if (top := key.partition(".")[0]) not in tops)
    if heads:
        logger.warning("%s: heads are left out: %s", name, shortened(heads))
    return {key: value for key, value in found.items() if key.partition(".")[0] not in heads}


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_NAMED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds Python objects beside tensors, whose opening can run code, or is no file of torch.save. "
            "Save the weights alone: torch.save(model.state_dict(), ...)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path}: {errors.one_line(error)[:200]}") from None


def _within(content: Any, path: Path) -> Tensors:
    """Find the state dictionary in what a file holds."""
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a state dictionary. Save model.state_dict()"
        )
    usual = next((key for key in _WITHIN if isinstance(content.get(key), dict)), None)
    if usual is not None:
        if usual in ("state_dict_ema", "model_ema"):
            logger.warning("%s: the averaged weights are used, %r, as in timm", path, usual)
        return _within(content[usual], path)
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors:
        return {str(key): value for key, value in tensors.items()}
    inner = [key for key, value in content.items() if isinstance(value, dict) and _has_tensors(value)]
    if len(inner) == 1:
        return _within(content[inner[0]], path)
    shown = shortened(sorted(map(str, content)))
    raise InputError(f"{path} holds no single state dictionary, but {shown}. Save model.state_dict()")


def _has_tensors(content: dict[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in content.values())


def _prefixes(weights: Mapping[str, Tensor], needed: Collection[str]) -> set[str]:
    """Return what stands before the name of the network's first weight, wherever it occurs."""
    first = next(iter(needed), "")
    return {key.removesuffix(first) for key in weights if f".{key}".endswith(f".{first}")}


def _common_prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return the modules that all names start with, as long as the network has no module of that name."""
    prefix, tops = "", {key.partition(".")[0] for key in own}
    while True:
        heads = {key.removeprefix(prefix).partition(".")[0] for key in weights}
        head = next(iter(heads), "")
        if len(heads) != 1 or head in tops or f"{prefix}{head}" in weights:
            return prefix
        prefix += f"{head}."


def _faults(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    missing = sorted(key for key in own.keys() - found.keys() if not key.endswith(_COUNTER))
    kinds = {
        "missing": missing,
        "unexpected": sorted(found.keys() - own.keys()),
        "of another shape": [
            f"{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in found and found[key].shape != own[key].shape
        ],
        "of another type": [
            f"{key} {found[key].dtype} for {own[key].dtype}"
            for key in own
            if key in found and not key.endswith(_COUNTER) and not _is_of_kind(found[key], own[key])
        ],
    }
    return [f"{len(keys)} {kind} ({shortened(keys, 3)})" for kind, keys in kinds.items() if keys]


def _is_of_kind(given: Tensor, own: Tensor) -> bool:
    """Return whether torch copies one to the other without loss of more than digits: it would drop imaginary parts."""
    if own.is_floating_point():
        return given.is_floating_point()
    return not (given.is_floating_point() or given.is_quantized or given.is_complex())
