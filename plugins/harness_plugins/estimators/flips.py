"""The flip estimator (Press et al., "The Entropy Enigma", ICML 2024): accuracy from changed predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import harness
from harness_plugins.estimators.flipping import (
    PUBLISHED,
    PUBLISHED_SIZE,
    flip_weights,
    published_accuracy,
)
from harness_plugins.estimators.outputs import Validation
from harness_plugins.estimators.procedure import FIRSTS, Procedure, settled

if TYPE_CHECKING:
    from harness_plugins.adapters.layers import OptimizerName
    from harness_plugins.estimators.flipping import Form
    from harness_plugins.estimators.procedure import First, Predictions

REPLICATES = 200


@dataclass(frozen=True)
class Flips:
    """Adapt to the images by ETA, and count the probe's predictions that differ afterwards (section 5).

    The score is the rate Σ w·flip / ((N + 1)/2), w = rank of the initial confidence / N: 0 if no prediction changed, 1
    if all did; unweighted, the share of flips. It falls as accuracy rises. A curve, fitted for the model, converts it.

    There are two definitions. By default the first predictions are those of the model as it is (`first = "source"`),
    whose accuracy is estimated: 40 steps in batches of 64, which leave out the probe. The probe has at most `probe`
    images and at most `probe_share` of the set. The last predictions use batch statistics, as adaptation does.

    With `published`, the polynomial of that name converts the rate. The authors fitted it on ImageNet models under a
    setting of their own, which `published` implies: the first predictions use batch statistics, too (`first =
    "adapted"`), the stream contains the probe, which is predicted in batches of 100, ε is .05, and there are 990 steps
    of SGD at 2.5e-4. Other values are refused. `first = "adapted"` without `published` is a score for a curve.

    With a `temperature`, all logits are divided by it, those that are adapted by, too. FlipsScaled fits it.
    """

    steps: int | None = None  # None: 40, or the authors' 990 with `published`, as for all below
    batch_size: int | None = None  # images of a step; None: 64
    probe: int | None = None  # None: 1000
    probe_share: float | None = None  # None: .5
    probe_batch: int | None = None  # images that are predicted together; None: batch_size
    disjoint: bool | None = None  # whether the stream leaves out the probe; None: true
    weighted: bool = True  # whether a flip counts by its rank of confidence
    first: First | None = None  # "source" or "adapted"; None: "source"
    published: Form | None = None  # None: a fitted curve reads the score
    margin: float | None = None  # ETA's, of ln C; None: .4
    epsilon: float | None = None  # ETA's ε; None: 1.3/√C
    lr: float | None = None  # None: as published for the images' size
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.published is not None and self.published not in PUBLISHED:
            raise harness.unknown_name("published curve", self.published, PUBLISHED, valid_label="Valid")
        if self.published is not None and self.weighted != (self.published == "weighted_quadratic"):
            raise harness.InputError(
                f"the published curve {self.published!r} was fitted on {'' if self.weighted else 'weighted '}counts"
                f"{' without weights' if self.weighted else ''}. Give weighted = {str(not self.weighted).lower()}"
            )
        if not 0 < self.temperature < float("inf"):
            raise harness.InputError(f"temperature is {self.temperature}. Give a number above 0")
        _ = self.procedure  # checks the rest

    @property
    def procedure(self) -> Procedure:
        """The steps that are taken: what was given, completed by our defaults, or the authors' for `published`."""
        names = Procedure.__dataclass_fields__
        return settled({name: getattr(self, name) for name in names}, published=self.published is not None)

    @property
    def definition(self) -> str:
        """Which of the definitions this is, in words."""
        words = FIRSTS[self.procedure.first]
        return words if self.published is None else f"{words}, published curve of ImageNet models"

    def estimate(self, target: harness.Unlabelled) -> harness.Estimate:
        """Adapt a copy of the model, and compare. Raises InputError for too few images or updates."""
        return self._compared(self.procedure.run(target, self.temperature), target.seed)

    def _compared(self, found: Predictions, seed: int) -> harness.Estimate:
        flipped, size = found.flipped, len(found.flipped)
        confidence = found.before.softmax(dim=1).amax(dim=1)
        weights = flip_weights(confidence) if self.weighted else torch.ones_like(flipped)
        whole = (size + 1) / 2 if self.weighted else size
        weighted = (weights * flipped).cpu().numpy()
        score = float(weighted.sum()) / whole
        drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), REPLICATES)  # (R, N)
        low, high = np.quantile(drawn @ weighted / whole, [0.025, 0.975])
        values = (score, float(low), float(high))
        if self.published is None:
            return harness.Estimate(score, None, *values[1:], _facts(found, self), self.definition)
        accuracy, *ends = map(self._published, values)
        return harness.Estimate(
            accuracy, accuracy, min(ends), max(ends), _facts(found, self), self.definition
        )

    def _published(self, score: float) -> float:
        """Evaluate the authors' polynomial at the rate, scaled to a count among 1,000 images."""
        assert self.published is not None
        whole = (PUBLISHED_SIZE + 1) / 2 if self.weighted else PUBLISHED_SIZE
        return published_accuracy(score * whole, self.published)


@dataclass(frozen=True)
class FlipsScaled:
    """The authors' flips, after temperature scaling on labelled ID validation. `published` is as in Flips."""

    published: Form = "weighted_quadratic"  # the authors' polynomial that converts the count

    def __post_init__(self) -> None:
        self._flips(1.0)

    def fit(self, data: harness.FitData) -> Flips:
        """Fit the temperature."""
        return self._flips(Validation.of(data, temperature=True).temperature)

    def _flips(self, temperature: float) -> Flips:
        weighted = self.published not in PUBLISHED or self.published == "weighted_quadratic"
        return Flips(published=self.published, weighted=weighted, temperature=temperature)


def _facts(found: Predictions, settings: Flips) -> dict[str, Any]:
    """Return further numbers of a comparison for the record."""
    predicted = found.after.argmax(dim=1)
    shares = torch.bincount(predicted, minlength=found.after.shape[1]).double() / len(predicted)
    return {
        "updated": found.updated,
        "flipped": float(found.flipped.mean()),
        "probe": float(len(predicted)),
        "class_entropy": float(torch.special.entr(shares).sum() / np.log(found.after.shape[1])),
        "temperature": settings.temperature,
    }
