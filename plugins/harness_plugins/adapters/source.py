"""The source model without adaptation: the baseline of the adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

import harness
from harness_plugins.adapters.layers import forward

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Source:
    """The classifier as it was trained: the baseline, which adapts nothing."""

    def adapt(self, classifier: harness.Classifier, batches: Iterable[Tensor]) -> Iterator[harness.Adapted]:
        """Forward each batch once."""
        for images in batches:
            with torch.no_grad():
                found = forward(classifier, images)
            yield harness.Adapted(before=found, after=found, forwards=len(images))
