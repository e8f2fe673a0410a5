"""Runs image scorers in the extraction pass. If one fails, the others continue."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.errors import describe
from harness.base.seeding import repeatable_kernels
from harness.base.strangers import RAISED, undisturbed
from harness.contract.isolated import IsolatedImageScorer, without_gradients
from harness.contract.scores import as_scores
from harness.models.guest import Guest

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
        device = self._model.device
        if isinstance(self._scorer, IsolatedImageScorer):
            scores, passes = self._scorer.call(
                _scored_in_worker, images, device, classifier=self._model.model.classifier
            )
        else:  # an attempt that memory did not suffice for does not count, so passes are of this piece
            scores, passes = _scored(self._scorer, images.clone(), self._model.guest, device)
        found = as_scores(scores, len(images), device="cpu")
        self._result.forwards += passes.forwards
        self._result.backwards += passes.backwards
        return found

    def result(self) -> ImageScores:
        """Return the scores of the whole pass, or the first error."""
        import torch

        if self._result.error is None:
            self._result.scores = torch.cat(self._scores).numpy()
        return self._result


def _scored(scorer: ImageScorer, images: Tensor, guest: Guest, device: str) -> tuple[Any, ImageScores]:
    """Return a scorer's scores of a piece of a batch, and the images that it passed forwards and backwards."""
    passes = ImageScores()
    with undisturbed(device), guest.lent() as classifier, _counted_passes(classifier, passes):
        return scorer.score_images(images, classifier), passes


def _scored_in_worker(state: dict[str, Any], images: Tensor, device: str) -> tuple[Any, ImageScores]:
    if "guest" not in state:
        state["guest"] = Guest(state["classifier"])
    with repeatable_kernels():
        scores, passes = _scored(state["object"], images, state["guest"], device)
    return without_gradients(scores), passes


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
