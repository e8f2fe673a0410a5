"""Training images in batches: held in memory if they fit, else decoded when needed; augmented when needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from harness.base.errors import HarnessError, InputError
from harness.base.seeding import derived_seed
from harness.models.batching import decoded_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.preprocessing import Preprocessing
    from harness.contract.selection import Selection
    from harness.models.training.augmentation import Augmentation

HELD_BYTES = 2**31  # of decoded images; above, images are decoded again in every epoch
MOST_WORKERS = 8


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled images of one size, read in any order."""

    selection: Selection
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    held: Tensor | None  # uint8 (N, channels, H, W)
    labels: Tensor  # (N,) int64
    seed: int
    workers: int

    @classmethod
    def of(
        cls,
        selection: Selection,
        preprocessing: Preprocessing,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> Samples:
        """Hold the decoded selection if it fits into memory and its augmentation does not need other originals."""
        if len(selection) == 0:
            raise InputError(f"the selection {selection.name!r} is empty, so it cannot be trained on")
        fits = len(selection) * int(np.prod(preprocessing.input_size)) <= HELD_BYTES
        labels = torch.as_tensor(selection.labels, dtype=torch.int64)
        # On a CPU, decoding processes would take time from training.
        workers = 0 if device == "cpu" else min(MOST_WORKERS, (os.cpu_count() or 1) - 1)
        wants_originals = augmentation is not None and augmentation.crops_the_original
        read = _originals if wants_originals else _decoded
        held = read(selection, preprocessing) if fits else None
        return cls(selection, preprocessing, augmentation, held, labels, seed, workers)

    def batches(self, order: Sequence[Tensor], *, epoch: int = 0, views: int = 1) -> Iterator[Tensor]:
        """Yield, for each positions (n,), the images of all views: uint8 (views · n, channels, H, W), view by view."""
        if self.held is not None and self.augmentation is None:
            for chosen in order:
                yield self.held[chosen]
            return
        loader = DataLoader(
            _Images(self, epoch),
            batch_sampler=[
                [(view, position) for view in range(views) for position in chosen.tolist()]
                for chosen in order
            ],
            num_workers=self.workers,
            collate_fn=torch.stack,
            generator=torch.Generator(),  # else it draws from the global generator
        )
        try:
            yield from loader
        except HarnessError as error:  # an error of a worker begins with the traceback of its process
            raise type(error)(str(error).strip().splitlines()[-1]) from None

    def image(self, position: int, *, epoch: int, view: int = 0) -> Tensor:
        """Read one image, uint8 (channels, H, W), augmented with a separate seed per epoch and view."""
        if self.augmentation is None:
            return self.preprocessing.batch(self.selection.images([position]))[0]
        seed = derived_seed(self.seed, "augment", epoch, position, *([view] if view else []))
        if self.held is not None:
            return self.augmentation.changed(_array(self.held[position]), seed, is_fitted=True)
        return self.augmentation.changed(self.selection.images([position])[0], seed)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class _Images(Dataset["Tensor"]):
    samples: Samples
    epoch: int

    def __getitem__(self, item: tuple[int, int]) -> Tensor:
        view, position = item
        return self.samples.image(position, epoch=self.epoch, view=view)

    def __len__(self) -> int:
        return len(self.samples)


def require_labels(samples: Samples, num_classes: int) -> None:
    """Raise InputError unless every class 0..C-1 has a sample and no other label occurs."""
    name, labels = samples.selection.name, samples.labels
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        raise InputError(
            f"the selection {name!r} has labels from {lowest} to {highest}. Training on {num_classes} classes "
            f"needs labels 0 to {num_classes - 1}: give [id] its classes"
        )
    empty = torch.nonzero(torch.bincount(labels, minlength=num_classes) == 0).flatten().tolist()
    if empty:
        raise InputError(
            f"the selection {name!r} has no sample of class {', '.join(map(str, empty))}, of classes 0 to "
            f"{num_classes - 1}. Raise its limit, or remove the class from [id] classes"
        )


def shuffled(size: int, batch_size: int, *what: object) -> Sequence[Tensor]:
    """Shuffle 0..size-1 with a seed derived from `what`, and cut it into batches; the last may be smaller.

    A last batch of one sample after larger batches is dropped, because BatchNorm has no statistics of one sample.
    """
    shuffler = torch.Generator().manual_seed(derived_seed(*what))
    batches = torch.split(torch.randperm(size, generator=shuffler), batch_size)
    return batches[:-1] if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1 else batches


def _decoded(selection: Selection, preprocessing: Preprocessing) -> Tensor:
    images = torch.empty((len(selection), *preprocessing.input_size), dtype=torch.uint8)
    at_once = decoded_at_once(preprocessing)
    for start in range(0, len(selection), at_once):
        stop = min(start + at_once, len(selection))
        images[start:stop] = preprocessing.batch(selection.images(range(start, stop)))
    return images


def _originals(selection: Selection, preprocessing: Preprocessing) -> Tensor | None:
    """Decode the images if all of them already have the model's shape, else return None."""
    channels, height, width = preprocessing.input_size
    shape = (height, width) if channels == 1 else (height, width, channels)
    images = torch.empty((len(selection), height, width, channels), dtype=torch.uint8)
    for position in range(len(selection)):
        image = selection.images([position])[0]
        if image.shape != shape:
            return None
        images[position] = torch.from_numpy(image.reshape(images.shape[1:]))
    return images.permute(0, 3, 1, 2)


def _array(image: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = image.numpy()
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)
