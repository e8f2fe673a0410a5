"""The second largest probability: a scorer of nobody's, to show what a plugin is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RunnerUp:
    """Scores a sample by the probability of its second most likely class; higher = more OOD."""

    def score(self, features: harness.Features) -> Tensor:
        return features.logits.double().softmax(dim=1).topk(2).values[:, 1]  # (N,)


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    yield harness.ScorerSpec("runner_up", RunnerUp)
