"""The order of ID and OOD scores among each other: the counts behind metrics, placements and intervals.

Shapes: m ID samples, n OOD samples, S scorers. Scores become float64 on their device; torch is imported when a score is
first read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.base.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Scores = NDArray[Any] | Tensor


def accepting_rank(count: int) -> int:
    """Return the smallest k with k / count >= 0.95, by integer arithmetic: 0.95 * count may round up or down."""
    return -(-19 * count // 20)


def as_tensor(values: Scores, name: str) -> Tensor:
    """Wrap an array as a tensor, without a copy if possible; a tensor is only detached.

    Raises InputError, which names the argument, for values that are not real numbers.
    """
    import torch

    if isinstance(values, torch.Tensor):
        if values.is_complex():
            raise _not_numbers(name, values.dtype)
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise _not_numbers(name, array.dtype)
    # torch warns about read-only arrays, such as memory-mapped scores: only these are copied.
    return torch.from_numpy(np.require(array, _torch_dtype(array), ["C", "A", "W"]))


def _torch_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """Return a dtype of torch that holds the array's values: torch lacks some widths and byte orders."""
    if array.dtype.kind == "f" and array.itemsize <= 8:
        return array.dtype.newbyteorder("=")
    return np.dtype(np.float64 if array.dtype.kind == "f" or array.dtype == np.uint64 else np.int64)


def _not_numbers(name: str, dtype: object) -> InputError:
    return InputError(f"{name} holds {dtype}; valid: integers and floats. Pass one number per sample")


def read_pair(
    id_scores: Scores, ood_scores: Scores, *, dims: tuple[int, ...] = (1,)
) -> tuple[Tensor, Tensor]:
    """Read both sides' scores as float64 tensors: (m,) and (n,), or (S, m) and (S, n) if dims contains 2.

    Infinite scores are valid. Raises InputError for NaN, an empty side, a wrong number of dimensions, different numbers
    of scorers, and two devices.
    """
    pair = {"id_scores": as_tensor(id_scores, "id_scores"), "ood_scores": as_tensor(ood_scores, "ood_scores")}
    for name, scores in pair.items():
        _check_shape(scores, name, dims)
    ids, oods = pair.values()
    check_one_device(id_scores=ids, ood_scores=oods)
    if ids.shape[:-1] != oods.shape[:-1]:
        raise InputError(
            f"id_scores has shape {tuple(ids.shape)} and ood_scores {tuple(oods.shape)}: "
            "give both the same scorers, (S, m) and (S, n)"
        )
    for name, scores in pair.items():
        check_not_nan(scores, name)
    return ids.double(), oods.double()


def check_one_device(**tensors: Tensor) -> None:
    """Raise InputError if the tensors, given by argument name, are on different devices."""
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = " and ".join(f"{name} is on {tensor.device}" for name, tensor in tensors.items())
        raise InputError(f"{places}: move them to one device with .to()")


def check_not_nan(values: Tensor, name: str) -> None:
    """Raise InputError if values contain NaN, which cannot be ordered."""
    count = int(values.isnan().sum())
    if count:
        raise InputError(
            f"{name} holds {count} NaN of {values.numel()} values: fix their computation, or drop them"
        )


def _check_shape(scores: Tensor, name: str, dims: tuple[int, ...]) -> None:
    if scores.ndim not in dims:
        valid = " or ".join({1: "(N,)", 2: "(S, N)"}[count] for count in dims)
        raise InputError(f"{name} has shape {tuple(scores.shape)}; valid: {valid}. Pass one score per sample")
    if not scores.numel():
        raise InputError(f"{name} is empty (shape {tuple(scores.shape)}): pass at least one sample")


def sort_scores(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Sort scores along their last dimension, lowest first; return them and their original positions."""
    import torch

    if scores.device.type != "cpu":
        found = scores.sort(dim=-1)
        return found.values, found.indices
    values = scores.numpy()  # numpy sorts several times faster than torch on a CPU
    order = values.argsort(axis=-1)
    return torch.from_numpy(np.take_along_axis(values, order, axis=-1)), torch.from_numpy(order)


def count_below(sorted_scores: Tensor, scores: Tensor) -> Tensor:
    """Count, for each of scores, the sorted_scores strictly below it; fastest if scores are sorted too."""
    return _search(sorted_scores, scores, "left")


def count_at_most(sorted_scores: Tensor, scores: Tensor) -> Tensor:
    """Count, for each of scores, the sorted_scores below or equal to it."""
    return _search(sorted_scores, scores, "right")


def _search(sorted_scores: Tensor, scores: Tensor, side: Literal["left", "right"]) -> Tensor:
    import torch

    if scores.device.type != "cpu":
        return torch.searchsorted(sorted_scores, scores.contiguous(), side=side)
    # numpy starts at the previous result, and uses no threads, which wait for each other on a busy machine.
    found = np.empty(scores.shape, dtype=np.int64)
    parts = [part.reshape(-1, part.shape[-1]) for part in (found, sorted_scores.numpy(), scores.numpy())]
    for counts, row, queries in zip(*parts, strict=True):
        counts[:] = row.searchsorted(queries, side)
    return torch.from_numpy(found)


def share_of_pairs(twice_below: Tensor, below_count: int) -> Tensor:
    """Compute the share of correctly ordered pairs, ties as half, from the sum of count_below and count_at_most.

    The sum over the last dimension is of integers, so that only the final division rounds.
    """
    return twice_below.sum(dim=-1).double() / (2 * below_count * twice_below.shape[-1])


@dataclass(frozen=True, eq=False)
class Counts:
    """For each sample of one side, lowest first: the numbers of ID and OOD scores below it, and at most equal to it."""

    id_below: Tensor
    id_at_most: Tensor
    ood_below: Tensor
    ood_at_most: Tensor


@dataclass(frozen=True, eq=False)
class Ranking:
    """Both sides' scores, lowest first, and the counts that metrics share, computed when first read."""

    ids: Tensor  # (m,)
    oods: Tensor  # (n,)

    @classmethod
    def of(cls, id_scores: Scores, ood_scores: Scores) -> Ranking:
        """Sort one scorer's scores, (m,) and (n,); raises InputError as read_pair does."""
        ids, oods = read_pair(id_scores, ood_scores)
        return cls(sort_scores(ids)[0], sort_scores(oods)[0])

    @cached_property
    def id_counts(self) -> Counts:
        """The counts at each ID sample, (m,)."""
        return self._counts_at(self.ids)

    @cached_property
    def ood_counts(self) -> Counts:
        """The counts at each OOD sample, (n,)."""
        return self._counts_at(self.oods)

    def _counts_at(self, scores: Tensor) -> Counts:
        return Counts(
            id_below=count_below(self.ids, scores),
            id_at_most=count_at_most(self.ids, scores),
            ood_below=count_below(self.oods, scores),
            ood_at_most=count_at_most(self.oods, scores),
        )
