"""Runs image scorers in the extraction pass. If one fails, the others continue."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import InputError, describe
from harness.base.strangers import RAISED, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.protocols import Classifier, ImageScorer
    from harness.models.loaded import LoadedModel


@dataclass
class ImageScores:
    """The result of one image scorer: its scores or its error, and the images it passed forwards and backwards."""

    scores: NDArray[np.float64] | None = None
    error: str | None = None
    forwards: int = 0
    backwards: int = 0


class ImageTask:
    """Runs one image scorer during a pass. An error is recorded and stops this scorer only."""

    def __init__(self, name: str, scorer: ImageScorer, model: LoadedModel, batch_size: int) -> None:
        self._name, self._scorer, self._model = name, scorer, model
        self._pieces = model.pace.pieces(batch_size, scorer=name)
        self._scores: list[Tensor] = []
        self._result = ImageScores()

    def consume(self, images: Tensor) -> None:
        """Score the next batch of normalised images, unless an earlier batch failed."""
        if self._result.error is not None:
            return
        try:
            self._scores += self._pieces.over(images, self._score)
        except RAISED as error:
            self._result.error = describe(error)

    def _score(self, images: Tensor) -> Tensor:
        import torch

        passes = ImageScores()  # of this piece: an attempt that memory did not suffice for does not count
        with (
            undisturbed(self._model.device),
            self._model.guest.lent() as classifier,
            _counted_passes(classifier, passes),
        ):
            scores = self._scorer.score_images(images.clone(), classifier)
        if not isinstance(scores, torch.Tensor):
            raise InputError(
                f"scores are a {type(scores).__name__}. Return a tensor with one score per image"
            )
        if scores.shape != (len(images),):
            raise InputError(
                f"scores have shape {tuple(scores.shape)}. Return ({len(images)},), one per image"
            )
        if scores.is_complex():
            raise InputError("scores are complex, which have no order. Return real scores")
        found = scores.detach().to("cpu", torch.float64, copy=True)  # the scorer may keep its tensor
        self._result.forwards += passes.forwards
        self._result.backwards += passes.backwards
        return found

    def result(self) -> ImageScores:
        """Return the scores of the whole pass, or the first error."""
        import torch

        if self._result.error is None:
            self._result.scores = torch.cat(self._scores).numpy()
        return self._result


@contextlib.contextmanager
def _counted_passes(classifier: Classifier, result: ImageScores) -> Iterator[None]:
    """Count the images that pass forwards and backwards through the head, or the whole model if it has none."""

    def forward(module: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        result.forwards += len(output)
        if output.requires_grad:
            output.register_hook(backward)  # type: ignore[no-untyped-call]

    def backward(gradient: Tensor) -> None:
        result.backwards += len(gradient)

    from harness.models.heads import last_module

    handle = last_module(classifier).register_forward_hook(forward)
    try:
        yield
    finally:
        handle.remove()
