"""MEMO (Zhang et al., NeurIPS 2022): adapts to each image separately, so that its augmented views agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import harness
from harness_plugins.adapters.layers import (
    Snapshot,
    entropy,
    forward,
    make_optimizer,
    module_of,
    require_optimizer,
)
from harness_plugins.adapters.tent import descend, require_whole
from harness_plugins.adapters.views import augmented, generator_for, require_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer

    from harness_plugins.adapters.layers import OptimizerName


@dataclass(frozen=True)
class Memo:
    """Minimise H of the mean p over `views` augmented views of one image, over all weights, and predict it (eq. 3).

    Every image starts from the source's weights, so the images of a batch are adapted to one after the other. BatchNorm
    keeps the source's statistics; on ImageNet the authors mix in those of the image.

    Views are those of `harness_plugins.adapters.views`; the authors' are AugMix. They are mirrored at random: set
    `flip` to False if that changes the class, as for digits.

    Defaults: SGD, lr 2.5e-4. The authors' SGD has no momentum, which is the same as .9 if `steps` is 1.
    """

    lr: float | None = None
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published
    views: int = 32
    steps: int = 1
    flip: bool = True
    seed: int = 0  # of the views

    def __post_init__(self) -> None:
        require_optimizer(self.optimizer, self.lr)
        require_whole("views", self.views)
        require_whole("steps", self.steps)
        require_seed(self.seed)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Adapt to each image, predict it, and reset."""
        parameters = list(module_of(classifier).requires_grad_(True).parameters())
        optimizer = make_optimizer(parameters, self.optimizer or "sgd", self.lr or 2.5e-4)
        source, generator = Snapshot.of(classifier, optimizer), None
        for number, images in enumerate(batches, start=1):
            generator = generator or generator_for(images, self.seed)
            with torch.no_grad():
                before = forward(classifier, images)
            found = []
            for image in images:
                found.append(self._predicted(classifier, image[None], optimizer, generator, number))
                source.restore(classifier, optimizer)
            yield harness.Adapted(
                before,
                harness.Features(
                    logits=torch.cat([features.logits for features in found]),
                    penultimate=torch.cat([features.penultimate for features in found]),
                ),
                scored="after",
                updated=True,
                reset=True,
                forwards=(self.steps * self.views + 1) * len(images),
                backwards=self.steps * self.views * len(images),
            )

    def _predicted(
        self,
        classifier: harness.Classifier,
        image: Tensor,
        optimizer: Optimizer,
        generator: torch.Generator,
        number: int,
    ) -> harness.Features:
        """Adapt to one image, (1, channels, H, W), and return its outputs afterwards."""
        for _ in range(self.steps):
            with torch.enable_grad():
                copies = image.expand(self.views, -1, -1, -1)
                logits = forward(classifier, augmented(copies, generator, flip=self.flip)).logits
                descend(marginal_entropy(logits), optimizer, number)
        with torch.no_grad():
            return forward(classifier, image)


def marginal_entropy(logits: Tensor) -> Tensor:
    """Compute H of the mean of softmax(logits) over the rows, (V, C) -> (), in nats."""
    log_sum = logits.log_softmax(dim=1).logsumexp(dim=0, keepdim=True)  # the logarithm of the mean, plus ln V
    return entropy(log_sum)[0]
