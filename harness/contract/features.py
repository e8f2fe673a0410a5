"""Data that the harness and a plugin exchange: features, feature sets, data to fit on, and results.

Shapes: N samples, C classes, D features. torch is imported only when a tensor is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from harness.base.errors import InputError, NotDeclaredError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    class Rows(Protocol):
        """Rows that are read, or computed, when they are indexed."""

        def __len__(self) -> int: ...

        def __getitem__(self, index: Any, /) -> Any: ...

    Column = Tensor | NDArray[Any] | Rows

T = TypeVar("T")
Head = Callable[["Tensor"], "Tensor"]  # (N, D) -> (N, C)

CHUNK_SIZE = 4096  # samples in memory at once


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier: logits = penultimate @ weight.T + bias."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)

    def __call__(self, penultimate: Tensor) -> Tensor:
        """Map penultimate features (N, D) to logits (N, C)."""
        return penultimate @ self.weight.T + self.bias


@dataclass(frozen=True)
class Measurement:
    """The result of a probe: a number, and its standard error if the number is an estimate."""

    value: float
    standard_error: float | None = None


@dataclass(frozen=True, eq=False)
class Adapted:
    """The outputs of an adapter for one batch of a stream.

    `before` holds the model's outputs before it learns from the batch, `after` those afterwards; if `after` is None,
    the harness forwards the batch again. `scored` names the one that the method's paper scores.
    """

    before: Features  # logits (n, C), penultimate (n, D)
    after: Features | None = None
    scored: Literal["before", "after"] = "before"
    updated: bool = False  # whether a weight changed
    reset: bool = False  # whether the model was reset to the source model afterwards
    forwards: int = 0  # images that were forwarded, in the passes that the method defines
    backwards: int = 0  # images for which a gradient was computed


@dataclass(frozen=True)
class Estimate:
    """The result of an estimator for an unlabelled set.

    `accuracy` is in 0..1. It is None if the score alone does not give it: then a curve, fitted on labelled shifted
    sets, maps the score to it. `score` is any number that rises or falls with accuracy, and equals it if it is given.
    `definition` says in a few words which of an estimator's several definitions was used, for records and tables.
    """

    score: float
    accuracy: float | None = None
    lo: float | None = None  # the score's 95 % interval over resampled images
    hi: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict)  # further numbers for the record
    definition: str = ""


@dataclass(frozen=True, eq=False)
class StreamScores:
    """The result of a transductive scorer: OOD scores (N,), higher = more OOD, with further facts and the cost.

    `variants` are other scores of the same pass; the record also holds their AUROC.
    """

    scores: Tensor
    variants: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    forwards: int = 0  # images that were forwarded
    backwards: int = 0  # images for which a gradient was computed


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """A whole set of images without labels, as estimators and transductive scorers receive it."""

    features: FeatureSet  # outputs of the unchanged model, in the order of the images
    batch: Callable[[NDArray[np.int64]], Tensor]  # positions (n,) to normalised images (n, channels, H, W)
    model: Callable[[], Any]  # makes a copy of the Classifier, in evaluation mode, that may be changed
    peer: FeatureSet | None = None  # the same from another training of the model, if the spec needs it
    seed: int = 0  # for all random draws

    def __len__(self) -> int:
        return len(self.features)


class Features:
    """The outputs of a classifier for N samples, one row per sample.

    Reading a field that was not given raises NotDeclaredError: a scorer with an undeclared need fails at once.
    """

    __slots__ = ("_fields",)

    def __init__(
        self,
        *,
        logits: Tensor | None = None,
        penultimate: Tensor | None = None,
        labels: Tensor | None = None,
        layers: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> None:
        fields = {
            "logits": logits,
            "penultimate": penultimate,
            "labels": labels,
            "ids": ids,
            "inputs": inputs,
        }
        self._fields: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        lengths = {name: len(value) for name, value in self._fields.items()}
        if layers is not None:
            lengths |= {f"layers[{name!r}]": len(value) for name, value in layers.items()}
            self._fields["layers"] = dict(layers)
        if not lengths:
            raise InputError(
                "Features needs at least one of logits, penultimate, labels, layers, ids, inputs"
            )
        if len(set(lengths.values())) > 1:
            raise InputError(f"Features fields differ in length: {lengths}. Give each one row per sample")

    @property
    def logits(self) -> Tensor:
        """Unnormalised class scores, (N, C)."""
        return cast("Tensor", self._field("logits"))

    @property
    def penultimate(self) -> Tensor:
        """The head's input, (N, D)."""
        return cast("Tensor", self._field("penultimate"))

    @property
    def labels(self) -> Tensor:
        """True classes, (N,) int64; -1 for no label. Scorers receive them only in `fit`."""
        return cast("Tensor", self._field("labels"))

    @property
    def ids(self) -> Tensor:
        """Positions of the samples in their stream, (N,) int64."""
        return cast("Tensor", self._field("ids"))

    @property
    def inputs(self) -> Tensor:
        """The normalised pixels of the images, (N, channels · H · W). Only probes receive them."""
        return cast("Tensor", self._field("inputs"))

    @property
    def layers(self) -> Mapping[str, Tensor]:
        """Intermediate features by layer name, each (N, channels): means over space or tokens."""
        return cast("Mapping[str, Tensor]", self._field("layers"))

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that can be read."""
        return frozenset(self._fields)

    def only(self, fields: frozenset[str]) -> Features:
        """Return a view with only the named fields."""
        return Features(**{name: value for name, value in self._fields.items() if name in fields})

    def __len__(self) -> int:
        first = next(iter(self._fields.values()))
        return len(next(iter(first.values()))) if isinstance(first, dict) else len(first)

    def _field(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise NotDeclaredError(
                f"the field {name!r} was read but not declared. Declared: {', '.join(sorted(self._fields))}. "
                f"Add {name!r} to the spec's needs"
            ) from None


class FeatureSet:
    """The features of a whole set, read in chunks, so that memory depends on the chunk size and not on N.

    Columns are tensors, memory-mapped arrays, or rows that are computed when they are read. A layer's column is named
    `layers/NAME`. Each iteration starts anew.
    """

    def __init__(
        self, columns: Mapping[str, Column], *, device: str = "cpu", chunk_size: int = CHUNK_SIZE
    ) -> None:
        self._columns = dict(columns)
        self._device = device
        self._chunk_size = chunk_size

    @classmethod
    def of(cls, features: Features, *, chunk_size: int = CHUNK_SIZE) -> FeatureSet:
        """Wrap features that are already in memory, on their device."""
        columns: dict[str, Any] = {}
        for name in features.fields:
            value = getattr(features, name)
            columns |= {f"layers/{k}": v for k, v in value.items()} if name == "layers" else {name: value}
        device = str(next(iter(columns.values())).device)
        return cls(columns, device=device, chunk_size=chunk_size)

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that a chunk has."""
        return frozenset(name.partition("/")[0] for name in self._columns)

    @property
    def labels(self) -> Tensor:
        """All labels, (N,) int64: the only column that is small enough to load whole."""
        if "labels" not in self._columns:
            raise NotDeclaredError("the labels were read but not declared. Add 'labels' to the spec's needs")
        return self._features(slice(None), only=frozenset({"labels"})).labels

    def chunks(self, size: int | None = None) -> Iterator[Features]:
        """Yield the samples in order, `size` per chunk, on the set's device."""
        step = size or self._chunk_size
        for start in range(0, len(self), step):
            yield self._features(slice(start, start + step))

    def take(self, indices: NDArray[np.int64]) -> Features:
        """Return the samples at the given positions, in that order, in memory."""
        import numpy as np

        return self._features(np.asarray(indices, dtype=np.int64))

    def sample(self, n: int, seed: int) -> Features:
        """Return n samples drawn without replacement (all, in order, if n ≥ N); the same for the same seed."""
        import numpy as np

        if n >= len(self):
            return self._features(slice(None))
        chosen = np.random.default_rng(seed).choice(len(self), size=n, replace=False)
        return self._features(np.sort(chosen))

    def only(self, fields: frozenset[str]) -> FeatureSet:
        """Return a view with only the named fields."""
        columns = {name: column for name, column in self._columns.items() if name.partition("/")[0] in fields}
        return FeatureSet(columns, device=self._device, chunk_size=self._chunk_size)

    def beside(self, **columns: Column) -> FeatureSet:
        """Return the set with further columns, of one row per sample."""
        return FeatureSet({**self._columns, **columns}, device=self._device, chunk_size=self._chunk_size)

    def __iter__(self) -> Iterator[Features]:
        return self.chunks()

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def _features(self, index: slice | NDArray[np.int64], *, only: frozenset[str] | None = None) -> Features:
        flat: dict[str, Any] = {}
        layers: dict[str, Tensor] = {}
        for name, column in self._columns.items():
            field, _, layer = name.partition("/")
            if only is None or field in only:
                (layers if layer else flat)[layer or field] = self._read(column, index)
        return Features(**flat, layers=layers or None)

    def _read(self, column: Column, index: slice | NDArray[np.int64]) -> Tensor:
        import numpy as np
        import torch

        if isinstance(column, torch.Tensor):
            picked = (
                column[index]
                if isinstance(index, slice)
                else column[torch.from_numpy(index).to(column.device)]
            )
        else:
            picked = torch.from_numpy(np.array(column[index]))
        return picked.to(self._device)


class FitData:
    """Data that a plugin may fit on: features of ID train and ID validation, and the model's head.

    Reading a part that the spec did not declare raises NotDeclaredError.
    """

    __slots__ = ("_head", "_train", "_validation")

    def __init__(
        self,
        *,
        train: FeatureSet | None = None,
        validation: FeatureSet | None = None,
        head: Head | None = None,
    ) -> None:
        self._train, self._validation, self._head = train, validation, head

    @property
    def train(self) -> FeatureSet:
        """Features of the model's training data."""
        return _declared("train", self._train)

    @property
    def validation(self) -> FeatureSet:
        """Features of held-out ID data."""
        return _declared("validation", self._validation)

    @property
    def head(self) -> Head:
        """The map from penultimate features (N, D) to logits (N, C)."""
        return _declared("head", self._head)

    @property
    def linear(self) -> LinearHead:
        """The head as weight (C, D) and bias (C,)."""
        if self._head is not None and not isinstance(self._head, LinearHead):
            raise InputError(
                f"the head is a {type(self._head).__name__}. Give harness.LinearHead(weight, bias)"
            )
        return _declared("linear", self._head if isinstance(self._head, LinearHead) else None)


def _declared(name: str, value: T | None) -> T:
    if value is None:
        raise NotDeclaredError(f"fit read {name!r}, which was not declared. Add {name!r} to the spec's needs")
    return value
