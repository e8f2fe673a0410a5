"""Runs scorers of images inside the extraction pass, each isolated from the others' failures."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.protocols import ImageScorer
    from harness.models.loaded import LoadedModel


@dataclass
class ImageScores:
    """What a scorer of images gave in a pass: its scores, or what went wrong, and its work."""

    scores: NDArray[np.float64] | None = None
    error: str | None = None
    forwards: int = 0
    backwards: int = 0


class ImageTask:
    """Runs one scorer of images through a pass; a failure is kept, and ends only its own work."""

    def __init__(self, name: str, scorer: ImageScorer, model: LoadedModel) -> None:
        self._name, self._scorer, self._model = name, scorer, model
        self._scores: list[Tensor] = []
        self._result = ImageScores()

    def consume(self, images: Tensor) -> None:
        """Score the next batch of normalised images, unless an earlier one failed."""
        if self._result.error is not None:
            return
        try:
            with _counted_passes(self._model, self._result):
                scores = self._scorer.score_images(images, self._model.model.classifier).detach()
            if scores.shape != (len(images),):
                raise InputError(
                    f"gave scores of shape {tuple(scores.shape)} where ({len(images)},) is expected"
                )
            self._scores.append(scores.double().cpu())
        except Exception as error:  # a stranger's scorer may raise anything
            self._result.error = f"{type(error).__name__}: {' '.join(str(error).split())}"

    def result(self) -> ImageScores:
        """Return the scores of the whole pass, or the first failure."""
        import torch

        if self._result.error is None:
            self._result.scores = torch.cat(self._scores).numpy()
        return self._result


@contextlib.contextmanager
def _counted_passes(model: LoadedModel, result: ImageScores) -> Iterator[None]:
    """Count the images that pass forwards and backwards through the classifier's last step."""

    def forward(module: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        result.forwards += len(output)
        if output.requires_grad:
            output.register_hook(backward)  # type: ignore[no-untyped-call]

    def backward(gradient: Tensor) -> None:
        result.backwards += len(gradient)

    last = model.model.classifier.get_classifier() if model.head is not None else model.module
    handle = last.register_forward_hook(forward)
    try:
        yield
    finally:
        handle.remove()
