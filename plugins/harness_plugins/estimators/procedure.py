"""How the flip estimator adapts and compares, by our definition and by its authors' (Press et al., ICML 2024)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

import harness
from harness_plugins.adapters.eta import Eta
from harness_plugins.adapters.layers import module_of, require_optimizer, use_batch_statistics
from harness_plugins.adapters.tent import require_whole
from harness_plugins.estimators.flipping import predict, shuffled_batches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from harness_plugins.adapters.layers import OptimizerName

First = Literal["source", "adapted"]
FIRSTS: Mapping[First, str] = {
    "source": "first predictions of the model as it is",
    "adapted": "first predictions under batch statistics",
}
FEWEST_UPDATES = 0.01  # share of the steps; below, too few were adapted for flips to be informative


@dataclass(frozen=True)
class Procedure:
    """Predict a probe, adapt a copy of the model to a stream by ETA, and predict the probe again.

    The first predictions are those of the model as it is (`source`), or those under batch statistics (`adapted`). The
    last are under batch statistics, as adaptation is. All logits are divided by a temperature, also for ETA.
    """

    steps: int = 40
    batch_size: int = 64
    probe: int = 1000  # images, at most
    probe_share: float = 0.5  # of the set, at most, if disjoint
    probe_batch: int = 64
    disjoint: bool = True  # whether the stream leaves out the probe
    first: First = "source"
    margin: float = 0.4
    epsilon: float | None = None
    lr: float | None = None
    optimizer: OptimizerName | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "probe", "probe_batch"):
            require_whole(name, getattr(self, name))
        if not 0 < self.probe_share < 1:
            raise harness.InputError(f"probe_share is {self.probe_share}. Give a share between 0 and 1")
        if self.first not in FIRSTS:
            raise harness.unknown_name("first prediction", self.first, FIRSTS, valid_label="Valid")
        require_optimizer(self.optimizer, self.lr)
        _ = self.adapter  # checks the rest

    def run(self, target: harness.Unlabelled, temperature: float = 1.0) -> Predictions:
        """Return the probe's logits before and after. Raises InputError for too few images or updates."""
        probe, stream = self._split(len(target), target.seed)
        classifier = target.model() if temperature == 1 else tempered(target.model(), temperature)
        if self.first == "adapted":
            use_batch_statistics(classifier)
        before = predict(classifier, target, probe, self.probe_batch)
        use_batch_statistics(classifier)
        positions = shuffled_batches(stream, self.batch_size, self.steps, target.seed)
        batches = (target.batch(part) for part in positions)
        updated = sum(adapted.updated for adapted in self.adapter.adapt(classifier, batches)) / self.steps
        if updated < FEWEST_UPDATES:
            raise harness.InputError(
                f"{100 * updated:.1f} % of {self.steps} steps updated a weight, so flips are not informative. Give a "
                f"larger margin than {self.margin} or a larger epsilon"
            )
        return Predictions(before, predict(classifier, target, probe, self.probe_batch), updated)

    @property
    def adapter(self) -> Eta:
        """The method that adapts."""
        return Eta(self.margin, self.epsilon, self.lr, self.optimizer)

    def _split(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the probe and the stream: disjoint, or overlapping as in the original."""
        size = min(self.probe, int(count * self.probe_share) if self.disjoint else count)
        left = count - size if self.disjoint else count
        if size < 2 or left < self.batch_size:
            wanted = self.batch_size + (2 if self.disjoint else 0)
            raise harness.InputError(
                f"{count} images are too few for a probe and a batch of {self.batch_size} beside it. Give {wanted} or "
                "more, or a smaller batch_size or probe_share"
            )
        order = np.random.default_rng(seed).permutation(count)
        return order[:size], order[size:] if self.disjoint else order


PUBLISHED_PROCEDURE = Procedure(
    steps=990,
    batch_size=64,
    probe=1000,
    probe_batch=100,
    disjoint=False,
    first="adapted",
    margin=0.4,
    epsilon=0.05,
    lr=2.5e-4,
    optimizer="sgd",
)  # under which the authors fitted their curves
_UNUSED = "probe_share"  # by a stream that holds the probe


def settled(given: Mapping[str, Any], *, published: bool) -> Procedure:
    """Complete what a user gave of a procedure: by the authors' own if a published curve is to read it, else by ours.

    Raises InputError for a value that is not the authors', if a published curve is to read it.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if not published:
        return Procedure(**{"probe_batch": given.get("batch_size", Procedure.batch_size), **given})
    authors = asdict(PUBLISHED_PROCEDURE)
    for name, value in given.items():
        if name == _UNUSED or value != authors[name]:
            own = "nothing, as the probe is in the stream" if name == _UNUSED else repr(authors[name])
            raise harness.InputError(
                f"{name} is {value!r}, but the published curve was fitted with {own}, and reads no other flips. Leave "
                f"{name} out, or leave published out and give labelled data for a curve of this model"
            )
    return PUBLISHED_PROCEDURE


@dataclass(frozen=True, eq=False)
class Predictions:
    """The probe's logits (N, C), float64, before and after adaptation; the share of steps that updated a weight."""

    before: Tensor
    after: Tensor
    updated: float

    @property
    def flipped(self) -> Tensor:
        """Whether an image's prediction differs, (N,) float64."""
        return (self.before.argmax(dim=1) != self.after.argmax(dim=1)).double()


class Tempered(nn.Module):
    """A classifier whose logits are divided by a temperature. It shares the classifier's weights."""

    def __init__(self, classifier: nn.Module, temperature: float) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, temperature

    def forward_features(self, images: Tensor) -> Any:
        """Forward images to feature maps."""
        return self._classifier.forward_features(images)

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Forward feature maps to penultimate features, or to logits / T."""
        found: Tensor = self._classifier.forward_head(features, pre_logits=pre_logits)
        return found if pre_logits else found / self.temperature

    def get_classifier(self) -> nn.Module:
        """Return the last layer, whose outputs are not divided."""
        found: nn.Module = self._classifier.get_classifier()
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Forward images to logits / T."""
        return self.forward_head(self.forward_features(images))

    @property
    def _classifier(self) -> Any:
        return self.classifier


def tempered(classifier: harness.Classifier, temperature: float) -> Any:
    """Divide a classifier's logits by a temperature. Raises InputError unless it is above 0."""
    return Tempered(module_of(classifier), temperature).eval()
