"""What a plugin may return: one real number per sample, and what a record or run.json holds beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat

from harness.base.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def as_scores(found: object, count: int, *, device: str, name: str = "scores") -> Tensor:
    """Return scores as float64 (count,) on a device, in memory of their own: a scorer may write into its tensor again.

    Raises InputError for anything but a dense tensor of `count` real numbers.
    """
    import torch

    if not isinstance(found, torch.Tensor):
        raise InputError(f"{name} are a {type(found).__name__}. Give a tensor with one score per sample")
    if found.is_complex():
        raise InputError(f"{name} are complex, which have no order. Give real scores")
    if found.is_meta or found.is_quantized or found.layout is not torch.strided:
        kind = "without values" if found.is_meta else "quantised" if found.is_quantized else "sparse"
        raise InputError(f"{name} are {kind}. Give a dense tensor of numbers")
    if tuple(found.shape) != (count,):
        raise InputError(
            f"{name} have shape {tuple(found.shape)}, expected ({count},). Give one score per sample"
        )
    plain = found.detach().as_subclass(torch.Tensor)  # a subclass may override what is done with it
    return plain.to(device, torch.float64, copy=True)


def as_number(found: object, name: str) -> float:
    """Return a number as a float, whatever library made it. Raises InputError for what is none."""
    try:
        if isinstance(found, str) or not isinstance(found, SupportsFloat):
            raise TypeError
        return float(found)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{name} is a {type(found).__name__}. Give a real number") from None


def as_numbers(found: object, name: str) -> dict[str, float]:
    """Return finite numbers by name. Raises InputError for anything else: a record could not hold it."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InputError(f"{name} are a {type(found).__name__}. Give finite numbers by name")
    numbers = {key: as_number(value, f"{key!r} of {name}") for key, value in found.items()}
    for key, value in numbers.items():
        if not math.isfinite(value):
            raise InputError(
                f"{key!r} of {name} is {value}. Give finite numbers, and leave out what has none"
            )
    return numbers


def as_count(found: object, name: str) -> int:
    """Return a number of images. Raises InputError for what is none."""
    number = as_number(found, name)
    if not number >= 0 or not number.is_integer():
        raise InputError(f"{name} is {number}. Give a whole number from 0")
    return int(number)


def as_facts(found: object) -> dict[str, Any]:
    """Return a table that a stranger gave. Raises ValueError if it is none, or if JSON cannot hold it, as with NaN."""
    if not isinstance(found, Mapping):
        raise ValueError(f"they are a {type(found).__name__}, not values by name")
    try:
        json.dumps(dict(found), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return dict(found)
