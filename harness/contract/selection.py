"""A selection of samples from a dataset, with their order and labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from harness.base.errors import DatasetError, HarnessError, InputError, describe, shortened, unknown_name
from harness.base.strangers import RAISED
from harness.contract.protocols import BatchedImages, NamedClasses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from harness.contract.protocols import ImageDataset

Given = TypeVar("Given")


@dataclass(frozen=True, eq=False)
class Selection:
    """Selected samples of a dataset, in order, with the labels that the suite gives them."""

    name: str
    dataset: ImageDataset
    indices: NDArray[np.int64]  # (N,) positions in the dataset
    labels: NDArray[np.int64]  # (N,) classes 0..C-1; -1 for no label
    class_names: tuple[str, ...] | None = None  # by label, if they are known
    restrict: bool = False  # only the classes that occur compete when a class is predicted
    skipped: tuple[str, ...] = ()  # why images were left out that cannot be read

    @classmethod
    def all_of(cls, name: str, dataset: ImageDataset) -> Selection:
        """Select every sample with its own label."""
        if len(dataset) == 0:
            raise DatasetError(f"the dataset {name!r} is empty. Check its split, folder or limit")
        labels = _checked_labels(name, dataset)
        given = dataset.class_names if isinstance(dataset, NamedClasses) else None
        names = None if given is None else tuple(map(str, given))
        if names is not None and labels.max() >= len(names):
            raise DatasetError(
                f"the dataset {name!r} has the label {labels.max()}, but names only {len(names)} classes. "
                "Give a name for each label"
            )
        return cls(name, dataset, np.arange(len(dataset)), labels, names)

    def with_classes(self, classes: Sequence[int | str] | None) -> Selection:
        """Keep the given classes, by number or name, renumbered 0, 1, ... in the given order; None keeps all."""
        if classes is None:
            return self
        numbers = [self._number(given) for given in classes]
        present = np.unique(self.labels[self.labels >= 0])
        absent = [given for given, number in zip(classes, numbers, strict=True) if number not in present]
        if absent:
            raise DatasetError(
                f"the dataset {self.name!r} has no samples of classes {shortened(absent)}. "
                f"Classes present: {shortened(self._titles(present))}"
            )
        renumbered = np.full(int(present.max()) + 1, -1, dtype=np.int64)
        renumbered[numbers] = np.arange(len(numbers))
        names = self.class_names
        of_known = self.take(np.flatnonzero(np.isin(self.labels, numbers)))
        return of_known.renumbered(renumbered, None if names is None else tuple(names[n] for n in numbers))

    def renumbered(self, numbers: NDArray[np.int64], class_names: tuple[str, ...] | None) -> Selection:
        """Give each label l the number `numbers[l]`; -1 stays -1."""
        labels = np.where(self.labels < 0, -1, numbers[self.labels])
        return replace(self, labels=labels, class_names=class_names)

    def limited(self, limit: int | None, *, seed: int = 0) -> Selection:
        """Keep at most `limit` samples, drawn with the seed, in their original order."""
        if limit is None or limit >= len(self):
            return self
        chosen = np.random.default_rng(seed).choice(len(self), size=limit, replace=False)
        return self.take(np.sort(chosen))

    def split(self, share: float, *, seed: int) -> tuple[Selection, Selection]:
        """Split off a random share of each class; return (rest, share), which have no sample in common."""
        rng = np.random.default_rng(seed)
        held: list[NDArray[np.int64]] = []
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            held.append(rng.permutation(members)[: round(share * len(members))])
        held_out = np.zeros(len(self), dtype=bool)
        held_out[np.concatenate(held)] = True
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))

    def take(self, positions: NDArray[np.int64]) -> Selection:
        """Select by position within this selection."""
        return replace(self, indices=self.indices[positions], labels=self.labels[positions])

    def images(self, positions: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Decode the images at the given positions within this selection.

        Raises InputError for what is no 8-bit image, and DatasetError for one that cannot be decoded.
        """
        indices = self.indices[np.asarray(positions)].tolist()
        images = self._decoded(indices)
        if len(images) != len(indices):
            raise InputError(
                f"the dataset {self.name!r} gives {len(images)} images for {len(indices)} positions. Give one for each"
            )
        for index, image in zip(indices, images, strict=True):
            _require_image(self.name, index, image)
        return images

    def _decoded(self, indices: list[int]) -> list[NDArray[np.uint8]]:
        dataset = self.dataset
        if isinstance(dataset, BatchedImages):
            which = shortened(indices)
            return self._given(f"the images {which}", lambda: dataset.images_at(indices))
        return [self._given(f"image {index}", partial(dataset.__getitem__, index)) for index in indices]

    def _given(self, what: str, ask: Callable[[], Given]) -> Given:
        """Ask the dataset for something. Whatever it raises becomes a DatasetError that names it."""
        try:
            return ask()
        except HarnessError:
            raise
        except RAISED as error:
            raise DatasetError(f"the dataset {self.name!r} raised {describe(error)} for {what}") from error

    @property
    def num_classes(self) -> int:
        """The number of classes, C: that of their names, if known, else one more than the highest label; 0: none."""
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.labels.max(initial=-1)) + 1

    def readable(self) -> Selection:
        """Leave out the images that cannot be read; `skipped` says why. Each image is decoded once for this."""
        faults: dict[int, str] = {}
        for position in range(len(self)):
            try:
                self._decoded([int(self.indices[position])])
            except HarnessError as error:
                faults[position] = describe(error)
        kept = self.take(np.array([p for p in range(len(self)) if p not in faults], dtype=np.int64))
        return replace(kept, skipped=(*self.skipped, *faults.values()))

    @cached_property
    def competing(self) -> NDArray[np.int64] | None:
        """The classes from which one is predicted; None: all outputs of the model."""
        occurring = np.unique(self.labels[self.labels >= 0])
        return occurring if self.restrict and len(occurring) else None

    @cached_property
    def digest(self) -> str:
        """Digest of the dataset's content, the selected samples, their labels and the classes that compete."""
        own = self._given("its digest", lambda: self.dataset.digest)
        if not isinstance(own, str):
            raise InputError(
                f"the dataset {self.name!r} has a digest of type {type(own).__name__}. Give a string that differs if "
                "an image or a label differs"
            )
        digest = hashlib.blake2b(own.encode("utf-8", "surrogatepass"), digest_size=16)
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        if self.restrict:
            digest.update(b"restrict")
        return digest.hexdigest()

    @cached_property
    def identities(self) -> frozenset[bytes]:
        """The content hashes of the selected samples. Raises DatasetError if the dataset cannot tell one."""
        return frozenset(self._identity(int(index)) for index in self.indices)

    def _identity(self, index: int) -> bytes:
        def ask() -> bytes:
            return hashlib.blake2b(self.dataset.identity(index), digest_size=16).digest()

        return self._given(f"the identity of image {index}", ask)

    def _number(self, given: int | str) -> int:
        if isinstance(given, int):
            return given
        if self.class_names is None:
            raise DatasetError(
                f"the dataset {self.name!r} has no names for its classes, so {given!r} is none. Give numbers"
            )
        if given not in self.class_names:
            raise unknown_name(f"class of {self.name!r}", given, self.class_names, valid_label="Classes")
        return self.class_names.index(given)

    def _titles(self, numbers: NDArray[np.int64]) -> list[int | str]:
        return [int(n) if self.class_names is None else self.class_names[n] for n in numbers]

    def __len__(self) -> int:
        return len(self.indices)


def _checked_labels(name: str, dataset: ImageDataset) -> NDArray[np.int64]:
    """Return a dataset's labels, (N,). Raises DatasetError for labels that are no classes, or not one per image."""
    labels = np.asarray(dataset.labels)
    if labels.dtype.kind not in "iub":
        raise DatasetError(f"the dataset {name!r} has labels of type {labels.dtype}. Give integers")
    if labels.shape != (len(dataset),):
        raise DatasetError(
            f"the dataset {name!r} has {labels.size} labels for {len(dataset)} images, of shape {labels.shape}. "
            "Give one each, (N,)"
        )
    if int(labels.max()) > np.iinfo(np.int64).max:
        raise DatasetError(
            f"the dataset {name!r} has the label {labels.max()}, which is above 2^63. Give classes"
        )
    if (least := int(labels.min())) < -1:
        raise DatasetError(
            f"the dataset {name!r} has the label {least}. Give classes from 0, and -1 for none"
        )
    return labels.astype(np.int64)


def _require_image(name: str, index: int, image: object) -> None:
    """Raise InputError for what is no 8-bit image: scaled as one, its features would be wrong without an error."""
    if not isinstance(image, np.ndarray):
        given = f"a {type(image).__name__}"
    elif image.dtype == np.uint8 and image.size and (image.ndim == 2 or image.shape[2:] == (3,)):
        return
    else:
        given = f"{image.dtype} of shape {image.shape}"
    raise InputError(
        f"the dataset {name!r} gives {given} as image {index}. Give NumPy arrays of uint8, (H, W) grey or (H, W, 3) RGB"
    )
