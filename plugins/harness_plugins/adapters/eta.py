"""ETA, EATA (Niu et al., ICML 2022) and RDumb (Press et al., NeurIPS 2023): entropy of selected samples."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

import harness
from harness_plugins.adapters.layers import (
    Snapshot,
    detached,
    entropy,
    forward,
    is_large,
    only_affine_moves,
    require_optimizer,
    use_batch_statistics,
)
from harness_plugins.adapters.tent import descend, optimizer_for, require_finite, require_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from harness_plugins.adapters.layers import OptimizerName

    Penalty = Callable[[Sequence[nn.Parameter]], Tensor]

MOMENTUM = 0.9  # of the average prediction


@dataclass(frozen=True)
class Eta:
    """Minimise the mean of exp(E₀ - H)·H, E₀ = margin·ln C, over confident, non-redundant samples (eqs. 2-6).

    These are the samples with H < E₀ and |cos(p, p̄)| < ε. p̄ is the moving average of their mean p over batches; before
    it exists, all cosines pass. The default ε is 1.3/√C, because a one-hot vector and the uniform one have a cosine of
    1/√C; the authors set .05 for ImageNet and .4 for CIFAR-10. `lr` and `optimizer` are as in Tent.
    """

    margin: float = 0.4  # of ln C: the entropy above which samples are left out
    epsilon: float | None = None  # ε; None: 1.3/√C
    lr: float | None = None  # None: as published
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published

    def __post_init__(self) -> None:
        if not 0 < self.margin <= 1:
            raise harness.InputError(f"margin is {self.margin}. Give a share of ln C above 0, up to 1")
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise harness.InputError(f"epsilon is {self.epsilon}. Give a number above 0")
        require_optimizer(self.optimizer, self.lr)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take one step per batch, or none if no sample is selected."""
        yield from _adapt(self, classifier, batches)


@dataclass(frozen=True)
class RDumb(Eta):
    """ETA that resets weights, optimiser and p̄ to the source every `reset_every` batches."""

    reset_every: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("reset_every", self.reset_every)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take at most one step per batch, and reset every `reset_every` batches."""
        yield from _adapt(self, classifier, batches, reset_every=self.reset_every)


@dataclass(frozen=True)
class Eata(Eta):
    """ETA with β Σ F (θ - θ₀)² added to the loss (eqs. 8-9), which keeps weights important for clean ID images.

    F is the mean, over the batches of `clean` images, of the squared gradient of the batch's cross-entropy to the
    classes that the model predicts. The default β is 1 for small images and 2000 for large ones.
    """

    beta: float | None = None  # β, the weight of the penalty; None: as published
    clean: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta is not None and not 0 <= self.beta < math.inf:
            raise harness.InputError(f"beta is {self.beta}. Give a number of at least 0")
        require_whole("clean", self.clean)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Raise InputError, because F is not known yet: see `prepare`."""
        raise harness.InputError(
            "eata has seen no clean images. Adapt with the result of prepare(classifier, batches)"
        )

    def prepare(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> PreparedEata:
        """Compute F on the first `clean` normalised ID images, or on all if there are fewer. Read no further."""
        classifier = copy.deepcopy(classifier)
        use_batch_statistics(classifier)
        parameters = only_affine_moves(classifier)
        totals, count, large = [torch.zeros_like(p) for p in parameters], 0, False
        for images in _first(self.clean, batches):
            gradients = _gradients(classifier, parameters, images)
            totals = [total + gradient.square() for total, gradient in zip(totals, gradients, strict=True)]
            count, large = count + 1, is_large(images)
        if not count:
            raise harness.InputError("eata was given no clean images to prepare on. Give ID training images")
        beta = self.beta if self.beta is not None else 2000.0 if large else 1.0
        source = tuple(p.detach() for p in parameters)
        return PreparedEata(self, beta, tuple(total / count for total in totals), source)


@dataclass(frozen=True, eq=False)
class PreparedEata:
    """EATA with F, in the order of the network's normalisation layers."""

    settings: Eata
    beta: float
    fisher: tuple[Tensor, ...]  # F, in the weights' shapes
    source: tuple[Tensor, ...]  # θ₀

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take one step per batch, or none if no sample is selected."""
        yield from _adapt(self.settings, classifier, batches, penalty=self.penalty)

    def penalty(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Compute β Σ F (θ - θ₀)²."""
        weights = zip(self.fisher, parameters, self.source, strict=True)
        return self.beta * torch.stack([(f * (p - p0).square()).sum() for f, p, p0 in weights]).sum()


def _adapt(
    settings: Eta,
    classifier: harness.Classifier,
    batches: Iterable[Tensor],
    *,
    penalty: Penalty | None = None,
    reset_every: int | None = None,
) -> Iterator[harness.Adapted]:
    use_batch_statistics(classifier)
    parameters = only_affine_moves(classifier)
    learner = snapshot = None
    for number, images in enumerate(batches, start=1):
        if learner is None:
            optimizer = optimizer_for(parameters, images, name=settings.optimizer, lr=settings.lr)
            learner = _Learner(settings, classifier, parameters, optimizer, penalty)
            snapshot = Snapshot.of(classifier, optimizer) if reset_every else None
        before, learnt = learner.learn(images, number)
        after = None if learnt else before
        reset = reset_every is not None and number % reset_every == 0
        if snapshot is not None and reset:
            # the harness cannot compute it after the reset
            after = after or _forwarded(classifier, images)
            snapshot.restore(classifier, learner.optimizer)
            learner.average = None
        yield harness.Adapted(
            before, after, updated=learnt > 0, reset=reset, forwards=len(images), backwards=learnt
        )


@dataclass(eq=False)
class _Learner:
    """A network that learns by ETA, with the average prediction of earlier batches."""

    settings: Eta
    classifier: harness.Classifier
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    penalty: Penalty | None
    average: Tensor | None = None  # p̄, (C,)

    def learn(self, images: Tensor, number: int) -> tuple[harness.Features, int]:
        """Take one step on a batch. Return the outputs before it, and the number of samples used."""
        with torch.enable_grad():
            found = forward(self.classifier, images)
            entropies = entropy(found.logits)  # (n,)
            require_finite(entropies.detach().mean(), self.optimizer, number)
            before = detached(found)
            kept = self._kept(before.logits, entropies.detach())
            if learnt := int(kept.sum()):
                descend(self._loss(entropies[kept], found.logits.shape[1]), self.optimizer, number)
                self._remember(before.logits[kept].softmax(dim=1).mean(dim=0))
        return before, learnt

    def _kept(self, logits: Tensor, entropies: Tensor) -> Tensor:
        """Select samples that are confident, and unlike p̄ if it exists: (n,) bool."""
        classes = logits.shape[1]
        kept = entropies < self.settings.margin * math.log(classes)
        if self.average is None:
            return kept
        epsilon = self.settings.epsilon or 1.3 / math.sqrt(classes)
        cosines = functional.cosine_similarity(logits.softmax(dim=1), self.average[None], dim=1)
        return kept & (cosines.abs() < epsilon)

    def _loss(self, entropies: Tensor, classes: int) -> Tensor:
        weights = (self.settings.margin * math.log(classes) - entropies.detach()).exp()
        loss = (weights * entropies).mean()
        return loss if self.penalty is None else loss + self.penalty(self.parameters)

    def _remember(self, prediction: Tensor) -> None:
        old = self.average
        self.average = prediction if old is None else MOMENTUM * old + (1 - MOMENTUM) * prediction


def _forwarded(classifier: harness.Classifier, images: Tensor) -> harness.Features:
    with torch.no_grad():
        return forward(classifier, images)


def _gradients(
    classifier: harness.Classifier, parameters: Sequence[nn.Parameter], images: Tensor
) -> tuple[Tensor, ...]:
    """Compute the gradient of the mean cross-entropy to the predicted classes."""
    with torch.enable_grad():
        logits = forward(classifier, images).logits
        loss = functional.cross_entropy(logits, logits.argmax(dim=1))
    # zeros for a layer that the forward pass does not use
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)


def _first(count: int, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield batches until they hold `count` images; the last one is cut, and no further one is read."""
    for images in batches:
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return
