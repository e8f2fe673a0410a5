"""DeepCluster: each view predicts the cluster of the other, by k-means on earlier embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

import harness
from harness_plugins.objectives.prototypes import check_prototypes, swapped_cross_entropy
from harness_plugins.objectives.views import VIEWS, TwoViews, check_above_zero, check_sizes

if TYPE_CHECKING:
    from torch import Tensor

KMEANS_ITERATIONS = 10


@dataclass(frozen=True)
class DeepCluster:
    """DeepCluster (Caron et al., ECCV 2018) in the form of DeepCluster-v2 (arXiv 2006.09882, appendix), online.

    A memory holds an embedding each of the last `memory` images: give the number of training images. When it has been
    filled once more, spherical k-means on it gives new centroids, so there is one clustering per epoch. The loss is
    ½ [w CE(y₁, s₂) + w CE(y₂, s₁)] with s = softmax(cosines with the centroids / temperature), y the cluster of a view
    and w inverse to the size of that cluster, with mean 1 over the memory. The weight stands for the first paper's
    balanced draw of images over clusters, without which all fall into one.

    Version 2 predicts by the centroids themselves, so no classifier has to be learnt anew after each clustering, as in
    the first paper. Online: the training loop does not tell which image is which, so a cluster is not looked up. It is
    the nearest centroid under a copy of the network from the time of the clustering. So clusters stay fixed for an
    epoch, as in the paper. Clusters of the present network would all become one within an epoch. The first centroids
    are those of the first batch.
    """

    views: ClassVar[int] = VIEWS
    temperature: float = 0.1
    memory: int = 4000  # images
    prototypes: int = 64  # clusters
    hidden: int = 128  # width of the projection head
    dim: int = 64  # dimension of the projections

    def __post_init__(self) -> None:
        check_above_zero("temperature", self.temperature)
        check_prototypes(self.prototypes)
        check_sizes(self.hidden, self.dim)
        if not isinstance(self.memory, int) or self.memory < self.prototypes:
            raise harness.InputError(
                f"memory is {self.memory!r}. Give a whole number of at least the prototypes, {self.prototypes}"
            )

    def head(self, num_features: int, num_classes: int) -> nn.Module:
        """Return the identity: the objective trains an encoder."""
        return nn.Identity()

    def around(self, classifier: harness.Classifier, num_features: int) -> nn.Module:
        """Return the encoder with a projector, the memory and the centroids."""
        return ClusteredViews(
            classifier,
            num_features,
            memory=self.memory,
            clusters=self.prototypes,
            hidden=self.hidden,
            dim=self.dim,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of cosines and weighted clusters (2, 2, n, K)."""
        cosines, clusters = outputs
        return swapped_cross_entropy(clusters, cosines / self.temperature)


class ClusteredViews(TwoViews):
    """Images (2n, channels, H, W) to both views' cosines with all centroids, and their clusters: (2, 2, n, K).

    A cluster is a row with the cluster's weight in one place, and zeros elsewhere.
    """

    def __init__(
        self,
        encoder: harness.Classifier,
        num_features: int,
        *,
        memory: int,
        clusters: int,
        dim: int,
        hidden: int,
    ) -> None:
        super().__init__(encoder, num_features, hidden=hidden, dim=dim, ema=1.0)  # a copy that does not move
        self.memory: Tensor
        self.centroids: Tensor
        self.weights: Tensor
        self.seen: Tensor
        self.register_buffer("memory", torch.zeros(memory, dim))
        self.register_buffer("centroids", torch.zeros(clusters, dim))
        self.register_buffer("weights", torch.ones(clusters))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # images so far
        self._latest: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Compute the student's cosines, and the clusters under the copy."""
        student, copied = functional.normalize(super().forward(images).float(), dim=-1)  # (2, n, d)
        with torch.autocast(images.device.type, enabled=False):
            if self.training:
                self._latest = student[0].detach()  # one of each image
                if not self.seen:
                    self._cluster(self._latest)
            nearest = (copied @ self.centroids.T).argmax(dim=-1)
            clusters = functional.one_hot(nearest, len(self.centroids)) * self.weights[nearest][..., None]
            return torch.stack([student @ self.centroids.T, clusters])

    @torch.no_grad()
    def after_step(self) -> None:
        """Remember the last batch, over the oldest images, and cluster once the memory is full again."""
        if self._latest is None or self.teacher is None:
            return
        size, seen = len(self.memory), int(self.seen)
        latest = self._latest[-size:]
        self.seen += len(latest)
        self.memory[torch.arange(seen, seen + len(latest)) % size] = latest
        if (seen + len(latest)) // size > seen // size:
            self._cluster(self.memory)
            self.teacher.load_state_dict(self.student.state_dict())

    def _cluster(self, embeddings: Tensor) -> None:
        centroids, sizes = spherical_kmeans(embeddings, len(self.centroids), KMEANS_ITERATIONS)
        shares = sizes / sizes.sum() * (sizes > 0).sum()  # of a cluster of mean size: 1
        self.centroids.copy_(centroids)
        self.weights.copy_(torch.where(sizes > 0, 1 / shares, 1))


@torch.no_grad()
def spherical_kmeans(points: Tensor, clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster unit vectors (N, d) by cosine: unit centroids (K, d) and the sizes of their clusters (K,).

    The first K points are the first centroids: in a shuffled batch they are a random draw. A cluster that gets empty
    keeps its centroid. Raises InputError for fewer points than clusters.
    """
    if len(points) < clusters:
        raise harness.InputError(
            f"{clusters} clusters of {len(points)} images. Give fewer prototypes, or a larger batch"
        )
    centroids = points[:clusters]
    for _ in range(iterations):
        members = _members(points, centroids)
        sums = members.T @ points
        centroids = torch.where(members.sum(dim=0)[:, None] > 0, functional.normalize(sums, dim=1), centroids)
    return centroids, _members(points, centroids).sum(dim=0)


def _members(points: Tensor, centroids: Tensor) -> Tensor:
    nearest: Any = (points @ centroids.T).argmax(dim=1)
    return functional.one_hot(nearest, len(centroids)).to(points.dtype)  # (N, K)
