"""ViM (Wang et al., CVPR 2022): the feature's residual outside the principal space, as one more logit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness_plugins.scorers.moments import add_up, scatter_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def default_dim(num_features: int) -> int:
    """Return the paper's principal dimension for a number of features: 1000, 512, or half of them."""
    if num_features >= 2048:
        return 1000
    return 512 if num_features >= 768 else num_features // 2


def residual_space(train: harness.FeatureSet, origin: Tensor, *, dim: int) -> Tensor:
    """Compute a basis (D, D - dim) of the complement of the principal space about the origin (D,)."""
    import torch

    moment = scatter_matrix(chunk.penultimate.double() - origin for chunk in train)  # (D, D)
    directions: Tensor = torch.linalg.eigh(moment).eigenvectors  # (D, D), variance ascends
    return directions[:, : len(origin) - dim]


def residual_norm(penultimate: Tensor, origin: Tensor, basis: Tensor) -> Tensor:
    """Compute the norm of (f - origin) in the basis' span, (N, D) -> (N,) float64."""
    import torch

    residual: Tensor = (penultimate.double() - origin) @ basis  # (N, D - dim)
    norm: Tensor = torch.linalg.vector_norm(residual, dim=1)
    return norm


@dataclass(frozen=True)
class Vim:
    """Virtual logit minus energy, α‖residual of f‖ - logsumexp(logits). Higher = more OOD.

    The origin is -W⁺b. α scales the mean residual norm of the training data to their mean largest logit. `dim` is the
    dimension of the principal space; None means the paper's, by the number of features.
    """

    dim: int | None = None

    def __post_init__(self) -> None:
        if self.dim is not None and self.dim < 1:
            raise harness.InputError(f"dim={self.dim}. Give 1 ≤ dim < number of features, or none")

    def fit(self, data: harness.FitData) -> FittedVim:
        """Compute the origin, the residual space and α. Raises InputError if one of them does not exist."""
        import torch

        weight, bias = data.linear.weight.double(), data.linear.bias.double()  # (C, D), (C,)
        origin = -torch.linalg.pinv(weight) @ bias  # (D,)
        dim = default_dim(len(origin)) if self.dim is None else self.dim
        if dim >= len(origin):
            raise harness.InputError(
                f"dim={dim} leaves no residual of {len(origin)} features. Give 1 ≤ dim < {len(origin)}"
            )
        basis = residual_space(data.train, origin, dim=dim)
        return FittedVim(origin, basis, _alpha(data.train, origin, basis))


def _alpha(train: harness.FeatureSet, origin: Tensor, basis: Tensor) -> float:
    """Return the mean largest logit over the mean residual norm."""
    import torch

    logit, residual, norm = add_up(
        torch.stack(
            [
                chunk.logits.double().amax(dim=1).sum(),
                residual_norm(chunk.penultimate, origin, basis).sum(),
                torch.linalg.vector_norm(chunk.penultimate.double() - origin, dim=1).sum(),
            ]
        )
        for chunk in train
    ).tolist()
    if not residual > 1e-12 * norm:
        dim = len(origin) - basis.shape[1]
        raise harness.InputError(
            f"dim={dim}: the training features have no residual outside the principal space. Give a smaller dim"
        )
    alpha: float = logit / residual
    if not 0 < alpha < math.inf:
        raise harness.InputError(
            f"alpha={alpha:.6g}: the mean largest logit on the training data is {logit / len(train):.6g}. "
            "alpha must be positive and finite: give a linear head with unshifted logits"
        )
    return alpha


@dataclass(frozen=True, eq=False)
class FittedVim:
    """A Vim with its origin, residual space and α."""

    origin: Tensor  # (D,)
    basis: Tensor  # (D, D - dim)
    alpha: float

    def score(self, features: harness.Features) -> Tensor:
        """Return virtual logits minus energies, (N,) float64."""
        virtual = self.alpha * residual_norm(features.penultimate, self.origin, self.basis)  # (N,)
        return virtual - features.logits.double().logsumexp(dim=1)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer ViM."""
    needs = {"logits", "penultimate", "linear", "train"}
    yield harness.ScorerSpec("vim", Vim, needs, "Wang et al., ViM, CVPR 2022")
