"""A whole set of images without labels, for estimators and for scorers that read all images at once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from harness.contract.features import Unlabelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.features import FeatureSet
    from harness.contract.protocols import Classifier
    from harness.data.streams import Stream
    from harness.models.decoded import Decoder


def unlabelled(
    decoder: Decoder, stream: Stream, features: FeatureSet, *, seed: int, peer: FeatureSet | None = None
) -> Unlabelled:
    """Combine a stream's features, its images on demand and copies of the model, without labels."""
    model = decoder.model

    def batch(positions: NDArray[np.int64]) -> Tensor:
        images = decoder.at(stream, positions).to(model.device)
        return model.model.preprocessing.normalise(images)

    def classifier() -> Classifier:
        copied: Any = copy.deepcopy(model.model.classifier)
        return copied.eval()  # type: ignore[no-any-return]

    return Unlabelled(features, batch, classifier, peer, seed)
