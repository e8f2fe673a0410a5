"""What a plugin's objects must be able to do. Nobody inherits from these: a fitting shape is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from harness.contract.features import (
        Adapted,
        Estimate,
        Features,
        FeatureSet,
        FitData,
        Measurement,
        StreamScores,
        Unlabelled,
    )


@runtime_checkable
class Scorer(Protocol):
    """Scores samples by their features."""

    def score(self, features: Features) -> Tensor:
        """Return one OOD score a sample, (N,), higher = more OOD."""
        ...


@runtime_checkable
class FittableScorer(Protocol):
    """A scorer that must see ID data first."""

    def fit(self, data: FitData) -> Scorer:
        """Return a new, fitted scorer; hyperparameters stay as they are."""
        ...


@runtime_checkable
class ImageScorer(Protocol):
    """Scores samples by their images, inside the extraction pass. May take gradients with respect to the images."""

    def score_images(self, images: Tensor, classifier: Classifier) -> Tensor:
        """Return one OOD score a sample, (N,), higher = more OOD, from normalised images (N, channels, H, W)."""
        ...


@runtime_checkable
class StreamScorer(Protocol):
    """Scores the samples of a stream together, all of them at once: a transductive scorer."""

    def score_stream(self, stream: Unlabelled) -> StreamScores:
        """Return one OOD score a sample, (N,), higher = more OOD, from a mixture of ID and OOD."""
        ...


@runtime_checkable
class Estimator(Protocol):
    """Predicts a model's accuracy on an unlabelled set."""

    def estimate(self, target: Unlabelled) -> Estimate:
        """Return the accuracy, or a score that rises or falls with it."""
        ...


@runtime_checkable
class FittableEstimator(Protocol):
    """An estimator that must see ID validation data first: clean, and with labels."""

    def fit(self, data: FitData) -> Estimator:
        """Return a new, fitted estimator, from `data.validation` and what else its spec declares."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """A torch module that maps images to class scores in two steps. Every timm model is one."""

    def forward_features(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to the last feature map or token sequence."""
        ...

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the feature map to penultimate features (N, D), or on to logits (N, C)."""
        ...

    def get_classifier(self) -> nn.Module:
        """Return the last step, from penultimate features (N, D) to logits (N, C)."""
        ...


@runtime_checkable
class ImageDataset(Protocol):
    """Ordered images with labels, decoded on access."""

    @property
    def digest(self) -> str:
        """What the content is, in hexadecimal: equal digests mean equal images and labels in equal order."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes, (N,); -1 where there is no label."""
        ...

    def __len__(self) -> int:
        """Return the number of images, N."""
        ...

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Decode one image: (H, W) grey or (H, W, 3) RGB."""
        ...

    def identity(self, index: int) -> bytes:
        """Return bytes that two samples share only if they are the same image, without decoding where possible."""
        ...


@runtime_checkable
class BatchedImages(Protocol):
    """An image dataset whose images cost less together: an optional part of ImageDataset."""

    def images_at(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Decode the images at the given positions, in that order, the same as one by one."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A training loss, with the head that it needs."""

    def head(self, num_features: int, num_classes: int) -> nn.Module | None:
        """Return the last step from penultimate features (N, D) to logits (N, C); None keeps the network's own.

        torch's Identity makes the network an encoder: it gives penultimate features and no logits.
        """
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits (N, C) for classes (N,); -1 marks a sample of the auxiliary dataset."""
        ...


@runtime_checkable
class ViewObjective(Objective, Protocol):
    """A training loss on several augmented views of each image, with the network around the encoder that it needs.

    The network may have `after_step()`, called after every optimiser step; what that changes must be in its state.
    """

    @property
    def views(self) -> int:
        """The augmented views of each image in a batch, V."""
        ...

    def around(self, classifier: Classifier, num_features: int) -> nn.Module:
        """Return the network that is trained: the classifier, a part of it, with what the loss needs beyond it.

        It maps the images of all views, view after view (V n, channels, H, W), to one tensor, the loss's outputs. The
        targets are the classes of the n images.
        """
        ...


@runtime_checkable
class Probe(Protocol):
    """Sums up the features of a whole set in one number."""

    def measure(self, features: FeatureSet) -> Measurement:
        """Return the number, with its standard error where it is an estimate."""
        ...


@runtime_checkable
class FittableProbe(Protocol):
    """A probe that must see the training features first."""

    def fit(self, data: FitData) -> Probe:
        """Return a new, fitted probe; hyperparameters stay as they are."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """Adapts a classifier to an unlabelled stream while it predicts."""

    def adapt(self, classifier: Classifier, batches: Iterable[Tensor]) -> Iterator[Adapted]:
        """Take batches of normalised images (n, channels, H, W) and give what the classifier makes of each, in order.

        The classifier is the adapter's own: it may change its weights, modes and layers. No labels come along.
        """
        ...


@runtime_checkable
class PreparedAdapter(Adapter, Protocol):
    """An adapter that must see clean ID images of the source model first."""

    def prepare(self, classifier: Classifier, batches: Iterable[Tensor]) -> Adapter:
        """Return a new adapter that knows what it needs; the classifier is left as it was."""
        ...


class Catalogue(Protocol):
    """What the installed plugins offer. A model that is made of other plugins' parts finds them here."""

    def get(self, kind: str, name: str) -> Any:
        """Return the `spec` that a kind's name stands for, with the `source` digest of its code."""
        ...

    def names(self, kind: str) -> list[str]:
        """List the names of one kind, sorted."""
        ...

    def path(self, kind: str, name_or_path: str) -> Path:
        """Return the TOML file of a suite or recipe, by name or as a path."""
        ...


AnyScorer = Scorer | FittableScorer | ImageScorer | StreamScorer
AnyProbe = Probe | FittableProbe
AnyEstimator = Estimator | FittableEstimator
