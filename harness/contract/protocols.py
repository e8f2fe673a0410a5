"""Protocols that the objects of a plugin must satisfy. Inheritance is not needed: matching methods are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Scores samples from their features."""

    def score(self, features: Features) -> Tensor:
        """Return one OOD score per sample, (N,), higher = more OOD."""


@runtime_checkable
class FittableScorer(Protocol):
    """A scorer that must be fitted on ID data first."""

    def fit(self, data: FitData) -> Scorer:
        """Return a new, fitted scorer with the same hyperparameters."""


@runtime_checkable
class ImageScorer(Protocol):
    """Scores samples from their images during extraction. It may compute gradients with respect to the images."""

    def score_images(self, images: Tensor, classifier: Classifier) -> Tensor:
        """Return one OOD score per sample, (N,), higher = more OOD, from normalised images (N, channels, H, W)."""


@runtime_checkable
class StreamScorer(Protocol):
    """A transductive scorer: it scores all samples of a stream together."""

    def score_stream(self, stream: Unlabelled) -> StreamScores:
        """Return one OOD score per sample, (N,), higher = more OOD, from a mixture of ID and OOD."""


@runtime_checkable
class Estimator(Protocol):
    """Predicts a model's accuracy on an unlabelled set."""

    def estimate(self, target: Unlabelled) -> Estimate:
        """Return the accuracy, or a score that rises or falls with it."""


@runtime_checkable
class FittableEstimator(Protocol):
    """An estimator that must be fitted first, on clean ID validation data with labels."""

    def fit(self, data: FitData) -> Estimator:
        """Return a new estimator, fitted on `data.validation` and the other needs that its spec declares."""


@runtime_checkable
class Classifier(Protocol):
    """A torch module that maps images to class scores in two steps. Every timm model is one."""

    def forward_features(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to the last feature map or token sequence."""

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the feature map to logits (N, C), or with `pre_logits` to penultimate features (N, D)."""

    def get_classifier(self) -> nn.Module:
        """Return the last step, from penultimate features (N, D) to logits (N, C)."""


@runtime_checkable
class ImageDataset(Protocol):
    """Ordered images with labels, decoded on access."""

    @property
    def digest(self) -> str:
        """Digest of the content, in hexadecimal. Equal digests mean equal images and labels in equal order."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes, (N,); -1 for no label."""

    def __len__(self) -> int:
        """Return the number of images, N."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Decode one image: (H, W) grey or (H, W, 3) RGB."""

    def identity(self, index: int) -> bytes:
        """Return bytes that are equal only for equal images; avoid decoding if possible."""


@runtime_checkable
class NamedClasses(Protocol):
    """An optional part of ImageDataset: the names of its classes."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names by label, whether or not each label occurs; None if they are not known."""


@runtime_checkable
class Described(Protocol):
    """An optional part of ImageDataset: what readers of a result must know about the data."""

    @property
    def facts(self) -> Mapping[str, object]:
        """Facts for run.json, such as files that were left out.

        Data of a published protocol state it as `protocol`: a mapping of its `name`, of the `part` that these data are
        ("id.train", "id.validation", "id.test", or "near/NAME" and the like), of the names of all its `parts`, and of
        whether these data are the `original` ones.
        """


@runtime_checkable
class LocatedImages(Protocol):
    """An optional part of ImageDataset: the files of its images, by which people find them."""

    def path(self, index: int) -> str | None:
        """Return the path of an image's file; None if it has none of its own."""


@runtime_checkable
class BatchedImages(Protocol):
    """An optional part of ImageDataset: several images are decoded together at lower cost."""

    def images_at(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Decode the images at the given positions, in that order; they equal those decoded one by one."""


@runtime_checkable
class Objective(Protocol):
    """A training loss and the head that it needs."""

    def head(self, num_features: int, num_classes: int) -> nn.Module | None:
        """Return the layer from penultimate features (N, D) to logits (N, C); None keeps the network's own.

        torch's Identity makes the network an encoder: it returns penultimate features and no logits.
        """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits (N, C) for classes (N,); -1 marks a sample of the auxiliary dataset."""


@runtime_checkable
class ViewObjective(Objective, Protocol):
    """A training loss on several augmented views of each image, and the network around the encoder that it needs.

    The network may have `after_step()`, called after every optimiser step. All that it changes must be in the state.
    """

    @property
    def views(self) -> int:
        """The number of augmented views of each image, V."""

    def around(self, classifier: Classifier, num_features: int) -> nn.Module:
        """Return the network to train: the classifier or a part of it, with the other modules that the loss needs.

        It maps the images of all views, view after view (V n, channels, H, W), to one tensor: `outputs` of the loss.
        The targets are the classes of the n images.
        """


@runtime_checkable
class Probe(Protocol):
    """Summarises the features of a whole set in one number."""

    def measure(self, features: FeatureSet) -> Measurement:
        """Return the number, with its standard error if it is an estimate."""


@runtime_checkable
class FittableProbe(Protocol):
    """A probe that must be fitted on training features first."""

    def fit(self, data: FitData) -> Probe:
        """Return a new, fitted probe with the same hyperparameters."""


@runtime_checkable
class Adapter(Protocol):
    """Adapts a classifier to an unlabelled stream while it predicts."""

    def adapt(self, classifier: Classifier, batches: Iterable[Tensor]) -> Iterator[Adapted]:
        """Take batches of normalised images (n, channels, H, W); yield the outputs for each batch, in order.

        The adapter may change the classifier's weights, modes and layers. It receives no labels.
        """


@runtime_checkable
class PreparedAdapter(Adapter, Protocol):
    """An adapter that must see the source model and clean ID images first."""

    def prepare(self, classifier: Classifier, batches: Iterable[Tensor]) -> Adapter:
        """Return a new, prepared adapter; the classifier must not change."""


class Catalogue(Protocol):
    """The specs of the installed plugins. A model that is built from parts of other plugins finds them here."""

    def get(self, kind: str, name: str) -> Any:
        """Return the offer of one name: an object with its `spec` and the `source` digest of its code."""

    def names(self, kind: str) -> list[str]:
        """List the names of one kind, sorted."""

    def path(self, kind: str, name_or_path: str) -> Path:
        """Return the TOML file of a suite or recipe, by name or as a path."""


AnyScorer = Scorer | FittableScorer | ImageScorer | StreamScorer
AnyProbe = Probe | FittableProbe
AnyEstimator = Estimator | FittableEstimator
