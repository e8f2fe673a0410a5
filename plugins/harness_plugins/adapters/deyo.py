"""DeYO (Lee et al., ICLR 2024): entropy of samples whose prediction depends on object shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

import harness
from harness_plugins.adapters.layers import (
    detached,
    entropy,
    forward,
    only_affine_moves,
    require_optimizer,
    use_batch_statistics,
)
from harness_plugins.adapters.sar import layers_below_last_stage
from harness_plugins.adapters.tent import descend, optimizer_for, require_finite, require_whole
from harness_plugins.adapters.views import generator_for, require_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from harness_plugins.adapters.layers import OptimizerName


@dataclass(frozen=True)
class DeYO:
    """Minimise the mean w·H of samples with H < margin·ln C and PLPD > plpd.

    PLPD = p_ŷ(x) - p_ŷ(x′) is the drop of the predicted class ŷ's probability if the image's patches are shuffled, and
    w = exp(weight_margin·ln C - H) + exp(PLPD), a constant in the gradient. A step updates scale and shift of the
    normalisation layers before the last stage, as in the authors' code. A batch without such samples takes no step.

    Defaults are as published for the image size: Adam, lr 1e-3 for small images; SGD, lr 2.5e-4 for large ones.
    """

    lr: float | None = None
    optimizer: OptimizerName | None = None  # "adam" or "sgd"; None: as published
    margin: float = 0.5
    plpd: float = 0.2
    weight_margin: float = 0.4
    patches: int = 4
    seed: int = 0  # of the shuffled patches

    def __post_init__(self) -> None:
        require_optimizer(self.optimizer, self.lr)
        for name, value in (("margin", self.margin), ("weight_margin", self.weight_margin)):
            if not 0 < value <= 1:
                raise harness.InputError(f"{name} is {value}. Give a share of ln C above 0, up to 1")
        if not -1 <= self.plpd < 1:
            raise harness.InputError(f"plpd is {self.plpd}. Give a number from -1 to below 1")
        require_whole("patches", self.patches)
        require_seed(self.seed)

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Take one step per batch, or none if no sample is selected."""
        use_batch_statistics(classifier)
        parameters = only_affine_moves(classifier, layers_below_last_stage(classifier))
        optimizer = generator = None
        for number, images in enumerate(batches, start=1):
            optimizer = optimizer or optimizer_for(parameters, images, name=self.optimizer, lr=self.lr)
            generator = generator or generator_for(images, self.seed)
            yield self._learn(classifier, images, optimizer, generator, number)

    def _learn(
        self,
        classifier: harness.Classifier,
        images: Tensor,
        optimizer: Optimizer,
        generator: torch.Generator,
        number: int,
    ) -> harness.Adapted:
        with torch.enable_grad():
            found = forward(classifier, images)
            entropies = entropy(found.logits)  # (n,)
            require_finite(entropies.detach().mean(), optimizer, number)
            before, unit = detached(found), math.log(found.logits.shape[1])
            confident = (entropies.detach() < self.margin * unit).nonzero()[:, 0]
            kept, difference = self._chosen(classifier, images, before.logits, confident, generator)
            if len(kept):
                chosen = entropies[kept]
                weights = (self.weight_margin * unit - chosen.detach()).exp() + difference.exp()
                descend((weights * chosen).mean(), optimizer, number)
        return harness.Adapted(
            before, updated=len(kept) > 0, forwards=len(images) + len(confident), backwards=len(kept)
        )

    def _chosen(
        self,
        classifier: harness.Classifier,
        images: Tensor,
        logits: Tensor,
        confident: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Return the positions of the confident samples with a high PLPD, and that PLPD."""
        if not len(confident):
            return confident, confident
        shuffled = shuffle_patches(images[confident], self.patches, generator)
        difference = probability_difference(classifier, logits[confident], shuffled)
        is_high = difference > self.plpd
        return confident[is_high], difference[is_high]


def probability_difference(classifier: harness.Classifier, logits: Tensor, changed: Tensor) -> Tensor:
    """Compute the drop in probability, on changed images, of the classes predicted by logits (n, C): (n,)."""
    with torch.no_grad():
        of_changed = forward(classifier, changed).logits
    confidence, predicted = logits.softmax(dim=1).max(dim=1, keepdim=True)
    return (confidence - of_changed.softmax(dim=1).gather(1, predicted))[:, 0]


def shuffle_patches(images: Tensor, patches: int, generator: torch.Generator) -> Tensor:
    """Cut images (n, channels, H, W) into `patches` x `patches` and shuffle them within each image.

    If a side is not divisible, images are resized before and resized back after, as by the authors. Raises
    InputError for images with fewer pixels than patches.
    """
    sides = list(images.shape[2:])
    divisible = [side // patches * patches for side in sides]
    if 0 in divisible:
        raise harness.InputError(
            f"images of {sides[0]}x{sides[1]} pixels have no {patches}x{patches} patches. Give fewer patches"
        )
    height, width = (side // patches for side in divisible)
    count, channels = images.shape[:2]
    grid = _resized(images, divisible).reshape(count, channels, patches, height, patches, width)
    pieces = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (n, patches², channels, height, width)
    order = torch.rand(pieces.shape[:2], generator=generator, device=images.device).argsort(dim=1)
    shuffled = pieces[torch.arange(count, device=images.device)[:, None], order]
    grid = shuffled.reshape(count, patches, patches, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return _resized(grid.reshape(count, channels, *divisible), sides)


def _resized(images: Tensor, sides: Sequence[int]) -> Tensor:
    if list(images.shape[2:]) == list(sides):
        return images
    return functional.interpolate(images, size=list(sides), mode="bilinear", antialias=True)
