"""The spectrum of a diffusion operator: exact eigenvalues, or sums over it by stochastic Lanczos quadrature.

The operator is K = S G S with G_ij = exp(-‖x_i - x_j‖² / 2σ²) and a diagonal S that makes K isospectral to a Markov
matrix (Coifman & Lafon 2006; Liao et al., arXiv 2312.04823). If K is too large for an eigenvalue decomposition, sums of
functions of its eigenvalues are split. In a subspace near the leading eigenvectors, Lanczos quadrature starts at the
basis; outside, at random vectors (Meyer et al., Hutch++, 2021; Ubaru, Chen & Saad 2017), with polynomials of the
spectrum, whose sums are known exactly, as control variates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from harness import InputError
from harness_plugins.scorers.moments import gaussian

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

EXACT_ROWS = 10_000  # up to this number all eigenvalues are computed
MOST_ROWS = 30_000  # of a matrix that is held in float64, 7 GiB
MEMORY = 3 * 2**30  # bytes that an operator may hold; a larger matrix is recomputed for every product
BLOCK = 1024  # rows of the matrix that are computed at once
DEFLATED, PROBES, STEPS = 16, 12, 20  # basis vectors of the leading subspace, random vectors, Lanczos steps
MOST_PROBES = 128
_BROKEN = 1e-7  # of the largest product's norm: a shorter Lanczos vector is only rounding error

Function = Callable[["Tensor"], "Tensor"]


class Estimate(NamedTuple):
    """A number and its standard error, None if the number is exact."""

    value: float
    standard_error: float | None = None


class Quadrature(NamedTuple):
    """Nodes and weights of vᵀ f(K) v ≈ Σ_k w_k f(θ_k) for each of B vectors."""

    nodes: Tensor  # (B, L)
    weights: Tensor  # (B, L)

    def of(self, function: Function) -> Tensor:
        """Return vᵀ f(K) v for each vector, (B,)."""
        return (self.weights * function(self.nodes)).sum(dim=1)


def kernel_matrix(x: Tensor, *, sigma: float) -> Tensor:
    """Compute G (N, N) of x (N, D) in its dtype. Raises InputError for too many rows."""
    require_room(len(x))
    return gaussian(x, x, sigma).fill_diagonal_(1.0)


def require_room(count: int) -> None:
    """Raise InputError if a float64 matrix with this number of rows and columns is too large."""
    if count > MOST_ROWS:
        raise InputError(
            f"{count} rows make a matrix of {8 * count**2 / 2**30:.0f} GiB. Give at most {MOST_ROWS} rows, "
            "or use the diffusion spectral entropy, which estimates beyond exact_rows"
        )


def diffusion_matrix(x: Tensor, *, sigma: float, alpha: float = 0.0) -> Tensor:
    """Compute K (N, N) of x (N, D) in its dtype; α > 0 divides G by its density before the degrees."""
    matrix = kernel_matrix(x, sigma=sigma)
    scale = _scale(matrix.sum(dim=1), lambda weights: matrix @ weights, alpha)
    return matrix.mul_(scale[:, None]).mul_(scale)


def _scale(degrees: Tensor, product: Function, alpha: float) -> Tensor:
    """Compute S = d^-α d'^-½, with d' the degrees of G / (d dᵀ)^α."""
    if alpha == 0:
        return degrees.rsqrt()
    density = degrees.pow(-alpha)
    return density * (density * product(density)).rsqrt()


@dataclass(frozen=True, eq=False)
class Operator:
    """K = S G S of x (N, D). G - level is held in float32 if it fits into `memory` bytes.

    If σ is wide, G is nearly constant, and float32 would round its deviations away; so the level, a number near G's
    mean, is kept separately. A matrix that does not fit is recomputed for every product, in float64.
    """

    x: Tensor  # (N, D) float64, centred
    sigma: float
    level: float
    beyond: Tensor | None  # (N, N) float32, G - level
    scale: Tensor  # (N,) S

    @classmethod
    def of(cls, x: Tensor, *, sigma: float, alpha: float = 0.0, memory: int = MEMORY) -> Operator:
        """Make the operator of points x (N, D)."""
        x = x.double() - x.double().mean(dim=0)
        count = len(x)
        beyond = x.new_empty((count, count), dtype=torch.float32) if 4 * count**2 <= memory else None
        degrees = x.new_zeros(count)
        level = 0.0
        for rows in _blocks(count):
            block = _kernel_rows(x, rows, sigma)
            level = level or block.mean().item()
            degrees[rows] = block.sum(dim=1)
            if beyond is not None:
                beyond[rows] = block.sub_(level)
        unscaled = cls(x, sigma, level, beyond, x.new_ones(count))
        scale = _scale(degrees, lambda weights: (unscaled @ weights[:, None])[:, 0], alpha)
        return cls(x, sigma, level, beyond, scale)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Multiply K with vectors, (N, B) float64 -> (N, B) float64."""
        scaled = self.scale[:, None] * vectors
        if self.beyond is not None:
            product = (self.beyond @ scaled.float()).double() + self.level * scaled.sum(dim=0)
        else:
            product = torch.cat([kernel @ scaled for _, kernel in self._kernel()])
        return self.scale[:, None] * product

    @property
    def trace(self) -> float:
        """Σ λ, exactly: G has ones on its diagonal."""
        return self.scale.square().sum().item()

    def squared_norm(self) -> float:
        """Σ λ², exactly: the sum of all squared entries."""
        weights = self.scale.square()
        parts = [weights[rows] @ (kernel.square_() @ weights) for rows, kernel in self._kernel()]
        return torch.stack(parts).sum().item()

    def _kernel(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield G in blocks of rows, float64."""
        for rows in _blocks(len(self)):
            if self.beyond is not None:
                yield rows, self.beyond[rows].double().add_(self.level)
            else:
                yield rows, _kernel_rows(self.x, rows, self.sigma)

    def __len__(self) -> int:
        return len(self.x)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _kernel_rows(x: Tensor, rows: slice, sigma: float) -> Tensor:
    block = gaussian(x[rows], x, sigma)
    block.diagonal(rows.start).fill_(1.0)
    return block


def estimate_sums(
    operator: Operator, functions: tuple[Function, ...], *, seed: int, tolerance: float, steps: int = STEPS
) -> tuple[list[float], Tensor]:
    """Estimate Σ f(λ) over K's eigenvalues for each function.

    Random vectors are added, at most MOST_PROBES, until the standard error of every sum is below `tolerance` times it.

    Returns:
        The sums, and the deviations of each random vector's estimate from them, (vectors, functions): the standard
        error of any smooth function of the sums follows from these by the delta method.

    """
    generator = torch.Generator().manual_seed(seed)
    basis = _leading_subspace(operator, generator)
    vectors = torch.cat([basis, _random_outside(operator, basis, generator)], dim=1)
    both = lanczos(operator, vectors, steps=steps)  # together: each product reads the whole matrix
    held = basis.shape[1]
    inside = Quadrature(both.nodes[:held], both.weights[:held])
    outside = [Quadrature(both.nodes[held:], both.weights[held:])]
    known = _known_sums(operator, inside)
    while True:
        drawn = PROBES * len(outside)
        sums, departures = _combined(functions, inside, outside, known)
        errors = departures.std(dim=0) / drawn**0.5
        small = (errors <= tolerance * sums.abs()).all()
        if bool(small) or drawn >= MOST_PROBES:
            return sums.tolist(), departures
        outside.append(lanczos(operator, _random_outside(operator, basis, generator), steps=steps))


def _leading_subspace(operator: Operator, generator: torch.Generator) -> Tensor:
    """Find an orthonormal basis (N, p) near the leading eigenvectors, by two products with random vectors."""
    count = min(DEFLATED, len(operator))
    vectors = torch.randn(len(operator), count, generator=generator, dtype=torch.float64).to(
        operator.x.device
    )
    for _ in range(2):
        vectors = torch.linalg.qr(operator @ vectors).Q
    return vectors


def _random_outside(operator: Operator, basis: Tensor, generator: torch.Generator) -> Tensor:
    """Draw Gaussian vectors orthogonal to the basis, (N, b)."""
    vectors = torch.randn(len(operator), PROBES, generator=generator, dtype=torch.float64).to(basis.device)
    return vectors - basis @ (basis.T @ vectors)


def _known_sums(operator: Operator, inside: Quadrature) -> Tensor:
    """Sum 1, λ and λ² outside the basis: the exact traces minus the sums inside, (3,)."""
    traces = (float(len(operator)), operator.trace, operator.squared_norm())
    return torch.tensor(
        [total - inside.of(lambda x, k=power: x**k).sum().item() for power, total in enumerate(traces)],  # type: ignore[misc]
        dtype=torch.float64,
    )


def _combined(
    functions: tuple[Function, ...], inside: Quadrature, outside: list[Quadrature], known: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the sums inside the basis to the estimates outside, with polynomials of degree 2 as control variates.

    The polynomial is the weighted least-squares fit over the quadrature's nodes, because the variance of vᵀ A v over
    Gaussian v is twice the sum of A's squared eigenvalues.
    """
    nodes = torch.cat([q.nodes for q in outside])
    weights = torch.cat([q.weights for q in outside])
    unit = nodes.abs().max().clamp(min=torch.finfo(torch.float64).tiny)  # keeps the powers on a similar scale
    powers = torch.stack([(nodes / unit) ** k for k in range(3)], dim=-1)  # (B, L, 3)
    root = weights.clamp(min=0).sqrt()
    values = torch.stack([function(nodes) for function in functions], dim=-1)  # (B, L, F)
    design, target = (root[..., None] * powers).flatten(0, 1), (root[..., None] * values).flatten(0, 1)
    fit = torch.linalg.pinv(design) @ target  # (3, F)
    residual = (weights[..., None] * (values - powers @ fit)).sum(dim=1)  # (B, F)
    inner = torch.stack([inside.of(function).sum() for function in functions])
    known = known / torch.stack([unit**k for k in range(3)]).cpu()
    sums = inner.cpu() + known @ fit.cpu() + residual.mean(dim=0).cpu()
    return sums, (residual - residual.mean(dim=0)).cpu()


def lanczos(operator: Operator, starts: Tensor, *, steps: int) -> Quadrature:
    """Run Lanczos from each of the start vectors (N, B), with full reorthogonalisation, all together.

    Exact for polynomials of degree below 2 `steps`. Weights sum to each start's squared norm.
    """
    steps = min(steps, len(operator))
    norms = starts.norm(dim=0)  # (B,)
    current = starts / norms.clamp(min=torch.finfo(torch.float64).tiny)
    basis = [current]
    diagonal, off = [], []
    alive = norms > 0
    reach = torch.zeros_like(norms)
    for step in range(steps):
        product = operator @ current
        reach = torch.maximum(reach, product.norm(dim=0))
        diagonal.append((product * current).sum(dim=0))
        if step == steps - 1:
            break
        for _ in range(2):  # twice is enough
            for vector in basis:
                product = product - vector * (vector * product).sum(dim=0)
        length = product.norm(dim=0)
        alive = alive & (length > _BROKEN * reach)
        length = torch.where(alive, length, 0.0)
        off.append(length)
        current = torch.where(alive, product / length.where(alive, 1.0), 0.0)
        basis.append(current)
    tridiagonal = torch.diag_embed(torch.stack(diagonal, dim=1))  # (B, L, L)
    if off:
        sides = torch.stack(off, dim=1)
        tridiagonal += torch.diag_embed(sides, 1) + torch.diag_embed(sides, -1)
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    return Quadrature(nodes, vectors[:, 0].square() * norms.square()[:, None])
