"""GEN (Liu, Lochman & Zach, CVPR 2023): generalised entropy of the M largest probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Gen:
    """Sum of p^gamma (1 - p)^gamma over the top_m largest p = softmax(logits). Higher = more OOD."""

    gamma: float = 0.1  # γ, above 0
    top_m: int = 100  # M, the number of largest probabilities that count

    def __post_init__(self) -> None:
        if not self.gamma > 0 or self.top_m < 1:
            raise harness.InputError(f"gamma={self.gamma}, top_m={self.top_m}. Give gamma > 0 and top_m ≥ 1")

    def score(self, features: harness.Features) -> Tensor:
        """Return the generalised entropies, (N,) float64; log(1 - p) is exact even if p rounds to 1."""
        import torch

        log_p = features.logits.double().log_softmax(dim=1).sort(dim=1, descending=True).values  # (N, C)
        rest = log_p[:, 1:]  # each at most 1/2; their sum is 1 - p of the largest
        log_q = torch.cat([rest.logsumexp(dim=1, keepdim=True), torch.log1p(-rest.exp())], dim=1)  # (N, C)
        return (self.gamma * (log_p + log_q))[:, : self.top_m].exp().sum(dim=1)  # (N,)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer GEN."""
    yield harness.ScorerSpec("gen", Gen, needs={"logits"}, cite="Liu, Lochman & Zach, GEN, CVPR 2023")
