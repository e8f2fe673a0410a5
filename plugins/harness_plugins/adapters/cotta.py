"""CoTTA (Wang et al., CVPR 2022): a student learns from an averaged teacher, with random restoration of weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

import harness
from harness_plugins.adapters.layers import (
    forward,
    is_large,
    make_optimizer,
    module_of,
    require_optimizer,
    use_batch_statistics,
)
from harness_plugins.adapters.tent import descend, require_whole
from harness_plugins.adapters.views import augmented, generator_for, require_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer

    from harness_plugins.adapters.layers import OptimizerName


@dataclass(frozen=True)
class CoTTA:
    """Minimise the student's mean cross-entropy to its teacher's p, over all weights (eqs. 1-8).

    If the source's mean confidence in a batch is below `threshold`, the teacher's logits are averaged over
    `augmentations` views, else they are those of the plain images. They are the prediction. After the step the
    teacher's weights move, θ′ ← ema θ′ + (1 - ema) θ, and each weight of the student returns to the source with
    probability `restore`. All networks use batch statistics. The classifier given to `adapt` is the teacher.

    Views are those of `harness_plugins.adapters.views`; the authors', of pixels, also vary saturation, hue and gamma,
    blur and clip. They are mirrored at random: set `flip` to False if that changes the class, as for digits.

    Defaults: for small images Adam, lr 1e-3, restore .01, threshold .92; for large ones SGD with momentum .9, lr .01,
    restore .001, threshold .1.
    """

    lr: float | None = None
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published
    ema: float = 0.999
    restore: float | None = None
    threshold: float | None = None
    augmentations: int = 32
    flip: bool = True
    seed: int = 0  # of the views and of the weights that are restored

    def __post_init__(self) -> None:
        require_optimizer(self.optimizer, self.lr)
        shares = (("ema", self.ema), ("restore", self.restore), ("threshold", self.threshold))
        for name, value in shares:
            if value is not None and not 0 <= value <= 1:
                raise harness.InputError(f"{name} is {value}. Give a share from 0 to 1")
        require_whole("augmentations", self.augmentations)
        require_seed(self.seed)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take one step per batch."""
        use_batch_statistics(classifier)
        learner = None
        for number, images in enumerate(batches, start=1):
            learner = learner or self._begin(classifier, images)
            yield learner.learn(images, number)

    def _begin(self, classifier: harness.Classifier, images: Tensor) -> _Learner:
        large = is_large(images)
        name: OptimizerName = self.optimizer or ("sgd" if large else "adam")
        restore = self.restore if self.restore is not None else 0.001 if large else 0.01
        threshold = self.threshold if self.threshold is not None else 0.1 if large else 0.92
        module_of(classifier).requires_grad_(False)
        source, student = copy.deepcopy(classifier), copy.deepcopy(classifier)
        parameters = list(module_of(student).requires_grad_(True).parameters())
        optimizer = make_optimizer(parameters, name, self.lr or (0.01 if large else 1e-3))
        generator = generator_for(images, self.seed)
        return _Learner(self, classifier, student, source, optimizer, generator, restore, threshold)


@dataclass(eq=False)
class _Learner:
    """The three networks of a stream, and the student's optimiser."""

    settings: CoTTA
    teacher: harness.Classifier
    student: harness.Classifier
    source: harness.Classifier
    optimizer: Optimizer
    generator: torch.Generator
    restore: float
    threshold: float

    def learn(self, images: Tensor, number: int) -> harness.Adapted:
        """Take one step on a batch and return the teacher's outputs before it."""
        with torch.no_grad():
            plain = forward(self.teacher, images)
            confidence = forward(self.source, images).logits.softmax(dim=1).amax(dim=1).mean()
            is_unsure = bool(confidence < self.threshold)
            target = self._mean_of_views(images) if is_unsure else plain.logits
        with torch.enable_grad():
            logits = forward(self.student, images).logits
            descend(functional.cross_entropy(logits, target.softmax(dim=1)), self.optimizer, number)
        self._follow_and_forget()
        passes = 3 + is_unsure * self.settings.augmentations  # student, teacher, source, and views
        return harness.Adapted(
            harness.Features(logits=target, penultimate=plain.penultimate),
            updated=True,
            forwards=passes * len(images),
            backwards=len(images),
        )

    def _mean_of_views(self, images: Tensor) -> Tensor:
        """Average the teacher's logits over views, one per image at a time, so batch statistics are of one view."""
        total = torch.zeros((), dtype=images.dtype, device=images.device)
        for _ in range(self.settings.augmentations):
            views = augmented(images, self.generator, flip=self.settings.flip)
            total = total + forward(self.teacher, views).logits
        return total / self.settings.augmentations

    @torch.no_grad()
    def _follow_and_forget(self) -> None:
        networks = (self.teacher, self.student, self.source)
        for teacher, student, source in zip(
            *(module_of(network).parameters() for network in networks), strict=True
        ):
            teacher.lerp_(student, 1 - self.settings.ema)
            draws = torch.rand(student.shape, generator=self.generator, device=student.device)
            student.copy_(torch.where(draws < self.restore, source, student))
