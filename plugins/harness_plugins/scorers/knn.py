"""k-th nearest neighbour distance (Sun et al., ICML 2022): exact, as fast as a float32 matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness_plugins.scorers.moments import unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

TILE = 512  # queries compared at once
BLOCK = 65536  # bank rows compared at once; TILE x BLOCK float32 values are 128 MiB
GROUP = 16  # columns that are skipped together if their maximum is too small
MARGIN = 8  # ranks on each side of the k-th whose distances are computed in float64


def kth_distance(queries: Tensor, bank: Tensor, *, k: int) -> Tensor:
    """Compute distances to the k-th nearest bank row, all L2-normalised: (N, D), (M, D) -> (N,) float64.

    A float32 product ranks the bank; distances at ranks around the k-th are computed in float64 from differences.
    If rounding errors of the product could have moved the k-th out of these ranks, the query is ranked in float64.
    """
    import torch

    units = unit_vectors(queries)  # (N, D)
    distance, certain = _measure(units, bank, k=k, dtype=torch.float32)
    if not certain.all():
        distance[~certain], _ = _measure(units[~certain], bank, k=k, dtype=torch.float64)
    return distance


def _measure(units: Tensor, bank: Tensor, *, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return k-th distances (N,) from a ranking in `dtype`, and whether that ranking is certain (N,)."""
    import torch

    first, last = max(k - 1 - MARGIN, 0), min(k + MARGIN, len(bank))  # ranks with a float64 distance
    closeness, rows = _closest(units, bank, count=last, dtype=dtype)  # (N, last)
    measured = torch.cat(
        [
            torch.linalg.vector_norm(tile[:, None] - unit_vectors(bank[near]), dim=2)
            for tile, near in zip(torch.split(units, TILE), torch.split(rows[:, first:], TILE), strict=True)
        ]
    )  # (N, last - first)
    distance = measured.kthvalue(k - first, dim=1).values  # (N,)

    sizes = units.square().sum(dim=1)  # (N,)
    exact = (sizes[:, None] - measured.square()) / 2  # the closeness that the measured distances imply
    slack = 4 * (closeness[:, first:] - exact).abs().amax(dim=1)  # (N,) the largest error seen, times 4
    kth = (sizes - distance.square()) / 2  # (N,)
    certain = torch.ones_like(kth, dtype=torch.bool)
    if first:
        certain &= closeness[:, first - 1] - slack > kth
    if last < len(bank):
        certain &= closeness[:, -1] + slack < kth
    return distance, certain


def _closest(units: Tensor, bank: Tensor, *, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the bank rows closest to each query, closest first: q·b - |b|²/2 and rows, each (N, count)."""
    import torch

    tiles = torch.split(units.to(dtype), TILE)
    space = tiles[0].new_empty(len(tiles[0]) * min(BLOCK, len(bank)))  # reused: new memory is slow
    values, rows = tiles[0].new_empty(len(units), 0), units.new_empty(len(units), 0, dtype=torch.int64)
    for start in range(0, len(bank), BLOCK):
        block = unit_vectors(bank[start : start + BLOCK])  # (B, D)
        half, block = (-block.square().sum(dim=1) / 2).to(dtype), block.to(dtype)
        found = []
        for tile in tiles:
            out = space[: len(tile) * len(block)].view(len(tile), len(block))
            found.append(_largest(torch.addmm(half, tile, block.T, out=out), min(count, len(block))))
        values = torch.cat([values, torch.cat([new for new, _ in found])], dim=1)
        rows = torch.cat([rows, torch.cat([columns for _, columns in found]) + start], dim=1)
        values, kept = values.topk(min(count, values.shape[1]), dim=1)
        rows = rows.gather(1, kept)
    return values, rows


def _largest(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's `count` largest, largest first: values and columns, each (N, count).

    They lie in the `count` groups of columns with the largest maxima, so only those are sorted.
    """
    import torch

    width = matrix.shape[1]
    groups = width // GROUP
    if groups <= count:
        values, columns = matrix.topk(count, dim=1)
        return values, columns
    whole = groups * GROUP
    maxima = matrix[:, :whole].view(-1, GROUP, groups).amax(dim=1)  # (N, groups)
    chosen = maxima.topk(count, dim=1, sorted=False).indices  # (N, count)
    steps = torch.arange(0, whole, groups, device=matrix.device)  # a group's columns are `groups` apart
    members = (chosen[:, None] + steps[:, None]).flatten(1)  # (N, GROUP * count)
    left_over = torch.arange(whole, width, device=matrix.device).expand(len(matrix), -1)
    members = torch.cat([members, left_over], dim=1)
    values, kept = matrix.gather(1, members).topk(count, dim=1)
    return values, members.gather(1, kept)


@dataclass(frozen=True)
class Knn:
    """Distance to the k-th nearest training feature, all of them L2-normalised. Higher = more OOD.

    `bank` is the number of training features kept, drawn with `seed`; None keeps all. A zero vector stays zero.
    """

    k: int = 50
    bank: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or (self.bank is not None and self.bank < 1):
            raise harness.InputError(f"k={self.k}, bank={self.bank}. Give k ≥ 1 and bank ≥ 1, or no bank")

    def fit(self, data: harness.FitData) -> FittedKnn:
        """Keep the bank. Raises InputError if it has fewer than k features."""
        size = len(data.train) if self.bank is None else min(self.bank, len(data.train))
        if self.k > size:
            raise harness.InputError(f"k={self.k}, but the bank has {size} features. Give 1 ≤ k ≤ {size}")
        return FittedKnn(self.k, data.train.sample(size, seed=self.seed).penultimate)


@dataclass(frozen=True, eq=False)
class FittedKnn:
    """A Knn with its bank."""

    k: int
    bank: Tensor  # (M, D)

    def score(self, features: harness.Features) -> Tensor:
        """Return distances to the k-th nearest of the bank, (N,) float64, 0 to 2."""
        return kth_distance(features.penultimate, self.bank, k=self.k)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer KNN."""
    yield harness.ScorerSpec("knn", Knn, needs={"penultimate", "train"}, cite="Sun et al., ICML 2022")
