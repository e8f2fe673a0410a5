"""Probes that measure representations: each reads features and returns one number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

import harness
from harness_plugins.probes import clouds, diffusion, er
from harness_plugins.scorers.moments import unit_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Reduction = Literal["expectation", "average"]


@dataclass(frozen=True)
class DiffusionEntropy:
    """DSE(Z) of the penultimate features, in bits (Liao et al., arXiv 2312.04823).

    At most `size` features are used, drawn with `seed`. `sigma` is a number, "median" or "neighbour".
    """

    sigma: float | str = 10.0  # width of the kernel
    t: float = 1  # steps of the diffusion
    alpha: float = 0.0  # exponent of the density by which the kernel is normalised
    size: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        _require_size(self.size)
        diffusion.diffusion_spectral_entropy(
            torch.eye(3), sigma=self.sigma, t=self.t, alpha=self.alpha
        )  # checks

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the entropy, with its standard error if it is estimated."""
        drawn = features.sample(self.size, self.seed).penultimate
        found = diffusion.estimate_entropy(
            drawn, sigma=self.sigma, t=self.t, alpha=self.alpha, seed=self.seed
        )
        return harness.Measurement(found.value, found.standard_error)


@dataclass(frozen=True)
class DiffusionInformation:
    """DSMI(Z; Y) of the penultimate features and the labels, in bits (Liao et al., arXiv 2312.04823).

    At most `size` features are used, drawn with `seed`, which also draws the subsets.
    """

    sigma: float | str = 10.0  # width of the kernel
    t: float = 1  # steps of the diffusion
    size: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        _require_size(self.size)
        clouds.require_parameters(sigma=self.sigma, t=self.t)

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the information of labelled samples, with its standard error if it is estimated."""
        drawn = features.sample(self.size, self.seed)
        known = drawn.labels >= 0
        found = diffusion.estimate_information(
            drawn.penultimate[known], drawn.labels[known], sigma=self.sigma, t=self.t, seed=self.seed
        )
        return harness.Measurement(found.value, found.standard_error)


@dataclass(frozen=True)
class InputInformation:
    """DSMI(Z; X) of the penultimate features and the images, in bits (Liao et al., arXiv 2312.04823).

    The images stand for the classes that spectral clustering of their pixels finds, `clusters` of them. The same images
    are clustered once. At most `size` images are used, drawn with `seed`, which also draws the subsets.
    """

    sigma: float | str = 10.0  # width of the kernel
    t: float = 1  # steps of the diffusion
    clusters: int = clouds.CLUSTERS
    size: int = 10_000
    seed: int = 0
    _found: dict[str, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require_size(self.size)
        clouds.require_parameters(sigma=self.sigma, t=self.t)

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the information, with its standard error if it is estimated."""
        drawn = features.sample(self.size, self.seed)
        found = diffusion.estimate_information(
            drawn.penultimate, self._classes(drawn.inputs), sigma=self.sigma, t=self.t, seed=self.seed
        )
        return harness.Measurement(found.value, found.standard_error)

    def _classes(self, inputs: Tensor) -> NDArray[np.int64]:
        key = hashlib.blake2b(inputs.cpu().numpy().tobytes()).hexdigest()
        if key not in self._found:
            self._found[key] = clouds.input_clusters(inputs, self.clusters)
        return self._found[key]


@dataclass(frozen=True)
class VmfEntropy:
    """Entropy of the penultimate directions under a von Mises-Fisher kernel density, in nats (ICML 2023, sec. 4.1)."""

    kappa: float = 10.0  # κ, the concentration of the kernel
    reduction: Reduction = "expectation"  # "average": -mean ln p; "expectation": plug-in
    size: int = 10_000  # features that are used, at most
    seed: int = 0  # of the features that are drawn

    def __post_init__(self) -> None:
        _require_size(self.size)
        er.vmf_entropy(torch.eye(2), kappa=self.kappa, reduction=self.reduction)  # checks

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the entropy. Raises InputError for zero features, which have no direction."""
        units = unit_vectors(features.sample(self.size, self.seed).penultimate)
        if dead := int((units == 0).all(dim=1).sum()):
            raise harness.InputError(f"{dead} of {len(units)} features are zero and have no direction")
        found = er.vmf_entropy(units, kappa=self.kappa, reduction=self.reduction)
        return harness.Measurement(found.item())


@dataclass(frozen=True)
class ClassEntropy:
    """Entropy of the mean predicted class probabilities, in nats (ICML 2023, discrete support)."""

    reduction: Reduction = "expectation"  # "expectation": -Σ m ln m; "average": -mean ln m

    def __post_init__(self) -> None:
        er.discrete_entropy(torch.ones(1, 1), reduction=self.reduction)  # checks

    def measure(self, features: harness.FeatureSet) -> harness.Measurement:
        """Return the entropy."""
        totals: list[Tensor] = [chunk.logits.double().softmax(dim=1).sum(dim=0) for chunk in features]
        mean = torch.stack(totals).sum(dim=0, keepdim=True) / len(features)  # (1, C)
        return harness.Measurement(er.discrete_entropy(mean, reduction=self.reduction).item())


def _require_size(size: int) -> None:
    if size < 2:
        raise harness.InputError(f"size is {size}. Give 2 or more")
