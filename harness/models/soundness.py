"""What a network computes with: weights must be floating-point numbers, all of them finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.base.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


def require_sound(module: nn.Module) -> None:
    """Raise InputError, with the first name, for weights or buffers that no result may come from.

    Parameters must be dense floating-point numbers, and finite. Buffers may be of any type that has values, since some
    hold indices, and may hold -inf, which masks; neither NaN nor +inf.
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, held in {**dict(module.named_buffers()), **module.state_dict()}.items():
        fault = _of_any(held) or (_of_a_parameter(held) if name in parameters else _of_a_buffer(held))
        if fault is not None:
            raise InputError(f"its weight {name!r} {fault}")


def _of_any(held: object) -> str | None:
    """Say why a value of a state cannot be computed with or compared; None if it can."""
    if not isinstance(held, torch.Tensor):
        return f"is a {type(held).__name__}, no tensor. Give a network whose state is tensors, not a quantised one"
    if held.is_quantized:
        return f"is quantised, {held.dtype}. Give weights of floating-point numbers"
    if held.is_meta:
        return 'is on the device "meta", without values. Load its weights'
    if held.layout is not torch.strided:
        return "is sparse. Give dense weights, as to_dense() makes them"
    return None


def _of_a_parameter(weight: Tensor) -> str | None:
    if not weight.is_floating_point():
        return f"is of type {weight.dtype}. Give weights of floating-point numbers"
    wrong = int((~_widened(weight).isfinite()).sum())
    return (
        f"has {wrong} of {weight.numel()} values that are NaN or infinite. Give other weights"
        if wrong
        else None
    )


def _of_a_buffer(held: Tensor) -> str | None:
    if not held.is_floating_point():
        return None
    values = _widened(held)
    wrong = int((values.isnan() | (values == torch.inf)).sum())
    return (
        f"has {wrong} of {held.numel()} values that are NaN or infinite. Give other weights"
        if wrong
        else None
    )


def _widened(tensor: Tensor) -> Tensor:
    """Return a tensor on which torch's comparisons are defined; numbers of one byte have none."""
    return tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()
