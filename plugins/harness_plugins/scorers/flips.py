"""How often a sample's prediction changes while the model adapts to ID and OOD together: a transductive score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_FILTER = 2.0  # no cosine is larger


@dataclass(frozen=True)
class FlipsScorer:
    """Adapt by ETA to a mixture of ID and OOD, and count at how many of `checks` a sample's prediction differs.

    Score: the number of checks at which the prediction differs from the first one, plus 1 - the initial confidence as a
    tie break; higher = more OOD. The variant `without_tie_break` is the number alone. After Press et al., "The Entropy
    Enigma", ICML 2024, who count flips per set and not per sample.

    By default `margin` and `epsilon` filter no samples, because OOD samples are uncertain, and networks whose logits
    are distances are uncertain about all samples. The default `lr` is ten times Tent's, because such streams are short.
    """

    epochs: int = 4  # passes over the mixture
    checks: int = 10
    batch_size: int = 64  # images of a step
    margin: float = 1.0
    epsilon: float = NO_FILTER
    lr: float | None = None

    def __post_init__(self) -> None:
        from harness_plugins.adapters.eta import Eta
        from harness_plugins.adapters.tent import require_whole

        for name in ("epochs", "checks", "batch_size"):
            require_whole(name, getattr(self, name))
        Eta(self.margin, self.epsilon, self.lr)  # raises InputError for invalid values

    def score_stream(self, stream: harness.Unlabelled) -> harness.StreamScores:
        """Score all samples at once. Raises InputError if no weight was updated or no prediction changed."""
        import torch

        from harness_plugins.adapters.eta import Eta
        from harness_plugins.adapters.layers import is_large, use_batch_statistics
        from harness_plugins.estimators.flipping import predict, shuffled_batches

        size, count = min(self.batch_size, len(stream)), len(stream)
        whole = np.arange(count)
        steps = max(self.epochs * (count // size), 1)
        classifier = stream.model()
        use_batch_statistics(classifier)
        first = predict(classifier, stream, whole, size)
        batches = (stream.batch(part) for part in shuffled_batches(whole, size, steps, stream.seed))
        differing = torch.zeros(count, dtype=torch.float64, device=first.device)
        checked = {round(steps * number / self.checks) for number in range(1, self.checks + 1)}
        updated = backwards = 0
        lr = self.lr or 10 * (2.5e-4 if is_large(stream.batch(whole[:1])) else 1e-3)
        for number, adapted in enumerate(
            Eta(self.margin, self.epsilon, lr).adapt(classifier, batches), start=1
        ):
            updated, backwards = updated + adapted.updated, backwards + adapted.backwards
            if number in checked:
                differing += predict(classifier, stream, whole, size).argmax(dim=1) != first.argmax(dim=1)
        flipped = float((differing > 0).double().mean())
        if not updated or not flipped:
            why = "no step updated a weight" if not updated else "no prediction changed"
            raise harness.InputError(
                f"{why} in {steps} steps, so the score would be the confidence alone. Give a larger lr, margin or "
                "epsilon, or more epochs"
            )
        return harness.StreamScores(
            differing + 1 - first.softmax(dim=1).amax(dim=1),
            variants={"without_tie_break": differing},
            facts={"updated": updated / steps, "flipped": flipped, "steps": float(steps)},
            forwards=count * (1 + len(checked - {0})) + steps * size,
            backwards=backwards,
        )


@harness.hookimpl
def harness_scorers() -> Iterator[harness.ScorerSpec]:
    """Offer the flips score."""
    yield harness.ScorerSpec(
        "flips",
        FlipsScorer,
        needs={"stream", "images", "classifier", "normalisation"},
        cite="after Press et al., ICML 2024",
        passes=15,  # the first, one per check, and one per epoch
    )
