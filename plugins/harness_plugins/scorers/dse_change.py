"""How much one sample changes the diffusion spectral entropy of a bank of training features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness_plugins.scorers.dse import class_balanced
from harness_plugins.scorers.moments import gaussian

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

MEMORY = 2**28  # bytes of the matrices that are decomposed at once


@dataclass(frozen=True)
class DseChange:
    """DSE(bank + f) - DSE(bank), the bits that a sample adds to the diffusion spectral entropy of training features.

    DSE is that of Liao et al. (arXiv 2312.04823, equations 1 to 4), on features as they are. Which of ID and OOD adds
    more depends on σ and t, so use `dse` or `knn` to detect OOD. `sigma` is a number, "median" or "neighbour", of the
    bank's distances. Each sample costs an eigenvalue decomposition of bank + 1 rows.
    """

    sigma: float | str = 10.0  # width of the kernel
    t: float = 1  # steps of the diffusion
    bank: int = 200  # training features, balanced over classes
    seed: int = 0  # of their draw

    def __post_init__(self) -> None:
        from harness_plugins.probes.clouds import require_parameters

        require_parameters(sigma=self.sigma, t=self.t)
        if self.bank < 2:
            raise harness.InputError(f"bank is {self.bank}. Give 2 or more features")

    def fit(self, data: harness.FitData) -> FittedDseChange:
        """Draw the bank and compute its entropy. Raises InputError if a data-driven width is 0."""
        from harness_plugins.probes.clouds import points_of, resolve_width
        from harness_plugins.probes.diffusion import diffusion_spectral_entropy

        chosen = class_balanced(data.train.labels.cpu().numpy(), self.bank, seed=self.seed)
        if len(chosen) < 2:
            raise harness.InputError(f"{len(chosen)} labelled training samples. Give at least 2")
        bank = points_of(data.train.take(chosen).penultimate)
        width = resolve_width(bank, self.sigma)
        return FittedDseChange(bank, width, self.t, diffusion_spectral_entropy(bank, sigma=width, t=self.t))


@dataclass(frozen=True, eq=False)
class FittedDseChange:
    """A DseChange with its bank."""

    bank: Tensor  # (M, D) float64
    sigma: float
    t: float
    entropy: float  # of the bank alone, bits

    def score(self, features: harness.Features) -> Tensor:
        """Return the changes in bits, (N,) float64, above or below 0."""
        import torch

        from harness_plugins.probes.clouds import points_of

        at_once = max(1, MEMORY // (8 * (len(self.bank) + 1) ** 2))
        centre = self.bank.mean(dim=0)  # distances lose digits far from it
        bank = self.bank - centre
        kernel = gaussian(bank, bank, self.sigma).fill_diagonal_(1.0)
        tiles = torch.split(points_of(features.penultimate) - centre, at_once)
        return torch.cat([self._entropies(kernel, gaussian(tile, bank, self.sigma)) for tile in tiles]) - (
            self.entropy
        )

    def _entropies(self, kernel: Tensor, rows: Tensor) -> Tensor:
        """Compute DSE of the bank with each of n samples, of kernels (M, M) and (n, M): (n,)."""
        import torch

        from harness_plugins.probes.diffusion import spectral_entropies

        count = len(kernel)
        degrees = torch.cat(
            [kernel.sum(dim=1) + rows, 1 + rows.sum(dim=1, keepdim=True)], dim=1
        )  # (n, M + 1)
        operators = kernel.new_zeros(len(rows), count + 1, count + 1)
        operators[:, :count, :count] = kernel
        operators[:, count, :count] = rows  # the lower triangle is enough
        operators[:, count, count] = 1
        scale = degrees.rsqrt()
        operators.mul_(scale[:, :, None]).mul_(scale[:, None, :])
        return spectral_entropies(torch.linalg.eigvalsh(operators), t=self.t)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer the change of entropy."""
    needs = {"penultimate", "labels", "train"}
    yield harness.ScorerSpec("dse_change", DseChange, needs, "Liao et al., arXiv 2312.04823", unstable=True)
