"""What a scorer may return: one real number per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
