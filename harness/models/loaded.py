"""A model on its device: the inputs that it offers to scorers, and the cache key of its features."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from harness.base.digests import features_key, model_digest
from harness.base.errors import InputError
from harness.contract.features import LinearHead
from harness.contract.specs import STREAM
from harness.models.batching import Pace
from harness.models.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from harness.contract.features import Head
    from harness.contract.specs import Model
    from harness.data.streams import Stream

_UNADAPTED: Mapping[str, object] = {"name": "source"}  # the adapter that changes nothing


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model on its device, and the dtype of its forward pass."""

    model: Model
    device: str
    dtype: str = "float32"
    builder_source: str = ""
    classes: Mapping[str, object] = field(
        default_factory=dict
    )  # how they were matched to the data's, for run.json

    @property
    def module(self) -> nn.Module:
        """The classifier as a torch module."""
        module: Any = self.model.classifier
        return module  # type: ignore[no-any-return]

    @cached_property
    def digest(self) -> str:
        """Digest of the weights, the architecture and the code that built them."""
        return model_digest(self.module, self.builder_source + self.model.source)

    @cached_property
    def head(self) -> Head | None:
        """The map from penultimate features to logits; None for an encoder, and for a model without a single one.

        It is verified on random images. Raises InputError if the model contradicts itself (heads.py).
        """
        if not self.model.num_classes:
            return None
        from harness.models.heads import probe, verified_head

        return verified_head(self.module, probe(self.model.preprocessing, self.device))

    @cached_property
    def guest(self) -> Guest:
        """The copy that plugins get which forward images by themselves."""
        return Guest(self.module)

    @cached_property
    def offers(self) -> frozenset[str]:
        """Names of the inputs that this model offers: to scorers, probes, adapters and estimators."""
        offers = {*self._basic_fields, "images", "inputs", "gradients", STREAM, *self._normalisations}
        if self.layer_names:
            offers.add("layers")
        if self.model.num_classes:
            offers.add("classifier")
        if self.head is None:
            return frozenset(offers)
        return frozenset(offers | ({"head", "linear"} if isinstance(self.head, LinearHead) else {"head"}))

    @cached_property
    def pace(self) -> Pace:
        """How many images the model forwards at once, and on how many CPU threads."""
        return Pace(self.model, self.device)

    @property
    def _normalisations(self) -> set[str]:
        """Inputs of adapters: normalisation layers with weights, and BatchNorm layers with statistics."""
        from torch import nn
        from torch.nn.modules.batchnorm import _BatchNorm

        layers = [m for m in self.module.modules() if isinstance(m, _BatchNorm | nn.LayerNorm | nn.GroupNorm)]
        found = {"normalisation"} if any(layer.weight is not None for layer in layers) else set()
        has_statistics = any(
            isinstance(layer, _BatchNorm) and layer.running_mean is not None for layer in layers
        )
        return found | ({"batchnorm"} if has_statistics else set())

    @property
    def _basic_fields(self) -> tuple[str, ...]:
        return ("logits", "penultimate") if self.model.num_classes else ("penultimate",)

    @cached_property
    def layer_names(self) -> list[str]:
        """Names of the modules whose outputs are the model's layers (timm's `feature_info`)."""
        info = getattr(self.module, "feature_info", None) or []
        modules = dict(self.module.named_modules())
        return [entry["module"] for entry in info if entry.get("module") in modules]

    def features_key(
        self, stream: Stream, *, layers: bool, adapter: Mapping[str, object] = _UNADAPTED
    ) -> str:
        """Return the cache key of this model's features of a stream under an adapter."""
        return features_key(
            model=self.digest,
            preprocessing=self.model.preprocessing.values,
            stream=stream.digest,
            adapter=adapter,
            dtype=self.dtype,
            fields=(*self._basic_fields, *(f"layers/{name}" for name in self.layer_names if layers)),
            libraries=libraries(),
        )


@cache
def libraries() -> dict[str, str]:
    """Return the versions of the libraries whose arithmetic affects every feature and score."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "torchvision", "timm")}


def resolve_device(device: str) -> str:
    """Turn `auto` into the GPU if there is one, else the CPU. Raises InputError for a device that is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count()
    valid = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if device not in valid:
        raise InputError(f"the device {device!r} is not there. Valid: {', '.join(valid)}")
    return device
