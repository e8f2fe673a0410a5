"""Offers this package's networks as architectures, which recipes train."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "harness_plugins.models"


class Architecture(harness.Deferred):
    """Wraps a network's builder, (input_size, num_outputs, *, ...), as a builder of models for requests."""

    @property
    def __signature__(self) -> inspect.Signature:
        own = list(inspect.signature(self.target).parameters.values())
        request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_ONLY)
        return inspect.Signature([request, *(each for each in own if each.kind is each.KEYWORD_ONLY)])

    def __call__(self, request: harness.ModelRequest, **params: Any) -> harness.Model:
        """Build the network for the request's outputs and image size. Raises InputError if either is missing."""
        size, outputs = request.input_size, request.num_outputs
        if outputs is None:
            raise harness.InputError(
                f"the model {request.name!r} is an architecture without weights. Train it: name a recipe that has "
                f"model = {request.name!r}"
            )
        if size is None:
            raise harness.InputError(
                f"the model {request.name!r} fits any size of image, so its recipe must state one: "
                "[preprocessing] input_size = [channels, height, width]"
            )
        plain = harness.Preprocessing(size, mean=(0.0,) * size[0], std=(1.0,) * size[0])
        return harness.Model(self.target(size, outputs, **params), plain, outputs)


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    """Offer the networks."""
    for name, function, names, cite in (
        ("mlp", "networks:mlp", "", ""),
        ("cnn", "networks:cnn", "", ""),
        ("toy-convnet", "networks:toy_convnet", "", "the GEN notebook of oodeel"),
        ("resnet-cifar", "cifar_networks:resnet_cifar", "resnet_names", "He et al., CVPR 2016"),
        ("densenet-bc", "cifar_networks:densenet_bc", "densenet_names", "Huang et al., CVPR 2017"),
    ):
        build = Architecture(f"{PACKAGE}.{function}")
        translate = harness.Deferred(f"{PACKAGE}.published_names:{names}") if names else None
        yield harness.ModelSpec(name, build, cite, architecture=True, translate=translate)
