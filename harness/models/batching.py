"""The number of images that a model receives at once: as many as memory holds.

On the CPU it follows from the size of the network's activations. If memory does not suffice, it is halved, on any
device. Outputs depend on it only by rounding, so no key contains it.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from harness.base.errors import InputError
from harness.base.threads import ThreadChoice, on_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from harness.contract.preprocessing import Preprocessing
    from harness.contract.specs import Model

logger = logging.getLogger("ood_harness")
T = TypeVar("T")

BUDGET = 2**28  # bytes of activations on the CPU
SMALL_BATCH = (
    2**14
)  # values in a batch of images; below, its activations are small and a second thread costs more
DECODED_AT_ONCE = 2**22  # values of resized images; originals may be a hundred times as large
_TRIED = 64  # images of a trial of a number of threads
_WORKSPACE = 3  # the peak of a pass is about so many times the largest input and output of a layer
_EXHAUSTED = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


@dataclass(frozen=True)
class Activations:
    """Bytes per image of a network's layers."""

    largest: int  # of the layer with the largest input and output
    total: int  # of all outputs, which a backward pass needs


def activations(model: Model, device: str) -> Activations:
    """Measure the activations of a model in one pass over two empty images."""
    import torch

    largest, total = 0, 0

    def measure(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest, total
        given, made = (sum(t.nbytes for t in of if isinstance(t, torch.Tensor)) for of in (inputs, [output]))
        largest, total = max(largest, given + made), total + made

    classifier: Any = model.classifier
    handles = [m.register_forward_hook(measure) for m in classifier.modules() if not any(m.children())]
    images = model.preprocessing.normalise(
        torch.zeros(2, *model.preprocessing.input_size, dtype=torch.uint8, device=device)
    )
    try:
        with torch.inference_mode():
            maps = classifier.eval().forward_features(images)
            classifier.forward_head(maps, pre_logits=not model.num_classes)
    finally:
        for handle in handles:
            handle.remove()
    return Activations(largest // 2, total // 2)


def decoded_at_once(preprocessing: Preprocessing) -> int:
    """Return the number of images whose originals are held in memory at once."""
    return max(16, DECODED_AT_ONCE // math.prod(preprocessing.input_size))


@dataclass
class Pieces:
    """Cuts batches into pieces that memory holds."""

    name: str  # of what works on them, in messages
    size: int

    def over(self, images: Tensor, work: Callable[[Tensor], T]) -> list[T]:
        """Do the work piece by piece; if memory does not suffice, on half as many images from then on.

        The work must change nothing if it fails. Raises InputError if one image is too much.
        """
        found: list[T] = []
        start, began = 0, self.size
        while start < len(images):
            piece = images[start : start + self.size]
            result, is_done = _attempted(work, piece)
            if is_done:
                found.append(result)  # type: ignore[arg-type]  # of type T, since it is done
                start += len(piece)
            elif len(piece) == 1:
                raise InputError(
                    f"one image of {tuple(piece.shape[1:])} does not fit into the memory of {piece.device}. "
                    "Free some, or use another device"
                )
            else:
                self.size = len(piece) // 2
        if self.size < began:
            logger.warning(
                "%s: memory does not suffice for %d images at once: it gets %d", self.name, began, self.size
            )
        return found


def _attempted(work: Callable[[Tensor], T], piece: Tensor) -> tuple[T | None, bool]:
    """Do the work. (None, False) if memory does not suffice; then nothing holds on to the tensors of the attempt."""
    import torch

    try:
        return work(piece), True
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    if piece.is_cuda:
        torch.cuda.empty_cache()
    return None, False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device's memory does not suffice."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _EXHAUSTED)


class Pace:
    """How a model forwards images on its device: how many at once, and on how many CPU threads."""

    def __init__(self, model: Model, device: str) -> None:
        self._model, self._device = model, device
        self._activations: Activations | None = None
        self._threads: ThreadChoice | None = None
        self._pieces: dict[tuple[int, str], Pieces] = {}

    def pieces(self, batch_size: int, *, scorer: str = "") -> Pieces:
        """Return the pieces of batches, for the model alone or for a scorer of images. They stay halved."""
        if (batch_size, scorer) not in self._pieces:
            name = scorer or type(self._model.classifier).__name__
            size = self._images_at_once(batch_size, backward=bool(scorer))
            self._pieces[batch_size, scorer] = Pieces(name, size)
        return self._pieces[batch_size, scorer]

    def _images_at_once(self, batch_size: int, *, backward: bool) -> int:
        """Return how many images fit: a power of two on the CPU, unless the whole batch fits.

        `backward` is for passes that keep all activations for gradients.
        """
        if self._device != "cpu" or self._is_small(batch_size):
            return batch_size
        if self._activations is None:
            self._activations = activations(self._model, self._device)
        found = self._activations
        bytes_of_one = max(1, found.total if backward else _WORKSPACE * found.largest)
        fits = max(1, BUDGET // bytes_of_one)
        return batch_size if fits >= batch_size else 2 ** int(math.log2(fits))

    def threads(self, batch_size: int) -> ThreadChoice:
        """Return the choice of threads, measured once per model."""
        if self._threads is None:
            self._threads = ThreadChoice.on(self._device, is_small=self._is_small(batch_size))
        return self._threads

    @contextmanager
    def on_chosen_threads(self, batch_size: int) -> Iterator[None]:
        """Compute on the chosen number of threads. If nothing was extracted yet, it is measured on empty images."""
        import torch

        choice = self.threads(batch_size)
        while choice.chosen is None:
            empty = torch.zeros(min(batch_size, _TRIED), *self._model.preprocessing.input_size)
            classifier: Any = self._model.classifier
            with choice.turn(), torch.inference_mode():
                classifier(empty)
        with on_threads(choice.chosen):
            yield

    def _is_small(self, batch_size: int) -> bool:
        return batch_size * math.prod(self._model.preprocessing.input_size) < SMALL_BATCH
