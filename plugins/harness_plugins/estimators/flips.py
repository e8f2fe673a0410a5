"""The flip estimator (Press et al., "The Entropy Enigma", ICML 2024): accuracy from changed predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import harness
from harness_plugins.adapters.eta import Eta
from harness_plugins.adapters.layers import require_optimizer, use_batch_statistics
from harness_plugins.adapters.tent import require_whole
from harness_plugins.estimators.flipping import (
    PUBLISHED,
    PUBLISHED_SIZE,
    flip_weights,
    predict,
    published_accuracy,
    shuffled_batches,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from harness_plugins.adapters.layers import OptimizerName
    from harness_plugins.estimators.flipping import Form

FEWEST_UPDATES = 0.01  # share of the steps; below, too few were adapted for flips to be informative
REPLICATES = 200


@dataclass(frozen=True)
class Flips:
    """Adapt to the images by ETA, and count the probe's predictions that differ afterwards (section 5).

    The score is the rate Σ w·flip / ((N + 1)/2), w = rank of the initial confidence / N: 0 if no prediction changed, 1
    if all did; unweighted, the share of flips. It falls as accuracy rises. A curve converts it to accuracy, or the
    polynomial named by `published`, which the authors fitted on ImageNet.

    The first predictions are those of the unadapted model, whose accuracy is estimated. The last use batch statistics,
    as adaptation does. With `first = "adapted"` both do, which leaves out the effect of batch statistics alone. The
    probe has at most `probe` images and at most `probe_share` of the set. The model does not adapt to the probe, unless
    `disjoint` is false, as in the original. The authors take 990 steps of SGD at 2.5e-4.
    """

    steps: int = 990
    batch_size: int = 64  # images of a step
    probe: int = 1000
    probe_share: float = 0.5
    disjoint: bool = True
    weighted: bool = True  # whether a flip counts by its rank of confidence
    first: str = "source"
    published: Form | None = None
    margin: float = 0.4  # ETA's, of ln C
    epsilon: float | None = None  # ETA's ε; None: 1.3/√C
    lr: float | None = None  # None: as published
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "probe"):
            require_whole(name, getattr(self, name))
        if not 0 < self.probe_share < 1:
            raise harness.InputError(f"probe_share is {self.probe_share}. Give a share between 0 and 1")
        if self.first not in ("adapted", "source"):
            raise harness.unknown_name(
                "first prediction", self.first, ["adapted", "source"], valid_label="Valid"
            )
        if self.published is not None and self.published not in PUBLISHED:
            raise harness.unknown_name("published curve", self.published, PUBLISHED, valid_label="Valid")
        if self.published is not None and self.weighted != (self.published == "weighted_quadratic"):
            raise harness.InputError(
                f"the published curve {self.published!r} was fitted on {'' if self.weighted else 'weighted '}counts"
                f"{' without weights' if self.weighted else ''}. Give weighted = {str(not self.weighted).lower()}"
            )
        require_optimizer(self.optimizer, self.lr)
        self._adapter()

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Adapt a copy of the model, and compare. Raises InputError for too few images or updates."""
        probe, stream = self._split(len(target), target.seed)
        classifier = target.model()
        before = predict(classifier, target, probe, self.batch_size) if self.first == "source" else None
        use_batch_statistics(classifier)
        if before is None:
            before = predict(classifier, target, probe, self.batch_size)
        positions = shuffled_batches(stream, self.batch_size, self.steps, target.seed)
        batches = (target.batch(part) for part in positions)
        updated = sum(adapted.updated for adapted in self._adapter().adapt(classifier, batches)) / self.steps
        if updated < FEWEST_UPDATES:
            raise harness.InputError(
                f"{100 * updated:.1f} % of {self.steps} steps updated a weight, so flips are not informative. Give a "
                f"larger margin than {self.margin} or a larger epsilon"
            )
        after = predict(classifier, target, probe, self.batch_size)
        return self._compared(before, after, updated, target.seed)

    def _adapter(self) -> Eta:
        return Eta(self.margin, self.epsilon, self.lr, self.optimizer)

    def _split(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the probe and the stream: disjoint, or overlapping as in the original."""
        size = min(self.probe, int(count * self.probe_share) if self.disjoint else count)
        left = count - size if self.disjoint else count
        if size < 2 or left < self.batch_size:
            wanted = self.batch_size + 2
            raise harness.InputError(
                f"{count} images are too few for a probe and a batch of {self.batch_size} beside it. Give {wanted} or "
                "more, or a smaller batch_size or probe_share"
            )
        order = np.random.default_rng(seed).permutation(count)
        return order[:size], order[size:] if self.disjoint else order

    def _compared(self, before: Tensor, after: Tensor, updated: float, seed: int) -> harness.Estimate:
        flipped = (before.argmax(dim=1) != after.argmax(dim=1)).double()
        size = len(flipped)
        weights = (
            flip_weights(before.softmax(dim=1).amax(dim=1)) if self.weighted else torch.ones_like(flipped)
        )
        whole = (size + 1) / 2 if self.weighted else size
        weighted = (weights * flipped).cpu().numpy()
        score = float(weighted.sum()) / whole
        drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), REPLICATES)  # (R, N)
        low, high = np.quantile(drawn @ weighted / whole, [0.025, 0.975])
        shares = torch.bincount(after.argmax(dim=1), minlength=after.shape[1]).double() / size
        facts = {
            "updated": updated,
            "flipped": float(flipped.mean()),
            "probe": float(size),
            "class_entropy": float(-(shares * shares.clamp_min(1e-300).log()).sum() / np.log(after.shape[1])),
        }
        accuracy = self._published(score)
        ends = (float(low), float(high))
        if accuracy is not None:
            ends = self._published_ends(*ends)
            return harness.Estimate(accuracy, accuracy, *ends, facts)
        return harness.Estimate(score, None, *ends, facts)

    def _published(self, score: float) -> float | None:
        """Evaluate the authors' polynomial at the rate, scaled to a count among 1,000 images."""
        if self.published is None:
            return None
        whole = (PUBLISHED_SIZE + 1) / 2 if self.weighted else PUBLISHED_SIZE
        return published_accuracy(score * whole, self.published)

    def _published_ends(self, low: float, high: float) -> tuple[float, float]:
        ends = [value for value in map(self._published, (low, high)) if value is not None]
        return min(ends), max(ends)
