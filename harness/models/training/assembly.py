"""Builds a network from an architecture and the head of an objective."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.base.digests import digest
from harness.base.errors import HarnessError, InputError, describe, one_line
from harness.base.seeding import seeded
from harness.contract.parameters import offer_taking
from harness.contract.registry import names_where
from harness.contract.specs import AUXILIARY, Model, ModelRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract.preprocessing import Preprocessing
    from harness.contract.protocols import Catalogue, Objective

# Errors that libraries raise for invalid hyperparameters and configurations.
BUILDING_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An architecture or an objective by name, with hyperparameters."""

    name: str
    params: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Blueprint:
    """Everything that is needed to rebuild a network, except its weights. Names refer to installed plugins."""

    architecture: Part
    objective: Part
    num_outputs: int
    preprocessing: Preprocessing | None  # None: the architecture's own
    catalogue: Catalogue

    def __post_init__(self) -> None:
        if not self.catalogue.get("model", self.architecture.name).spec.architecture:
            valid = names_where(self.catalogue, "model", lambda spec: spec.architecture)
            raise InputError(
                f"the model {self.architecture.name!r} is not an architecture, so it cannot be trained. "
                f"Valid: {', '.join(valid)}"
            )
        offer_taking(self.catalogue, "model", self.architecture.name, self.architecture.params)
        offer_taking(self.catalogue, "objective", self.objective.name, self.objective.params)

    @property
    def source(self) -> str:
        """Digest of the code of the network and of its loss."""
        parts = (("model", self.architecture.name), ("objective", self.objective.name))
        return digest([self.catalogue.get(kind, name).source for kind, name in parts])

    @property
    def needs_auxiliary(self) -> bool:
        """Whether the objective trains on auxiliary outliers."""
        return AUXILIARY in self.catalogue.get("objective", self.objective.name).spec.needs

    def loss(self) -> Objective:
        """Build the objective."""
        spec = self.catalogue.get("objective", self.objective.name).spec
        objective: Objective = _guarded(
            f"objective {self.objective.name}", spec.build, **self.objective.params
        )
        return objective

    def build(self, *, seed: int, pretrained: bool = False) -> Model:
        """Build the network with weights drawn from the seed, on the CPU; an encoder has 0 classes."""
        name = self.architecture.name
        request = ModelRequest(
            name=name,
            argument=name.partition(":")[2],
            seed=seed,
            catalogue=self.catalogue,
            num_outputs=self.num_outputs,
            input_size=self.preprocessing.input_size if self.preprocessing else None,
            pretrained=pretrained,
        )
        spec = self.catalogue.get("model", name).spec
        with seeded(seed):
            model: Model = _guarded(f"model {name}", spec.build, request, **self.architecture.params)
            classifier: Any = model.classifier
            head = self.loss().head(_linear(classifier, name).in_features, self.num_outputs)
            if head is not None:
                replace_classifier(classifier, head, name=name)
        return replace(
            model,
            preprocessing=self.preprocessing or model.preprocessing,
            num_classes=0 if isinstance(head, nn.Identity) else model.num_classes,
            source=self.source,
        )


def require_usable(model: Model, blueprint: Blueprint) -> None:
    """Forward one image. Raises InputError if this fails, or if the logits are not the output of the head.

    Some architectures add the output of a second last layer, which the objective's head does not replace.
    """
    name, size = blueprint.architecture.name, model.preprocessing.input_size
    classifier: Any = model.classifier
    with torch.inference_mode():
        try:
            features = classifier.eval().forward_features(torch.rand(1, *size, generator=torch.Generator()))
            logits = classifier.forward_head(features)
            by_head = classifier.get_classifier()(classifier.forward_head(features, pre_logits=True))
        except BUILDING_ERRORS as error:
            raise InputError(
                f"the model {name!r} cannot forward images of {size}: {one_line(error)}"
            ) from None
    outputs = blueprint.num_outputs if model.num_classes else by_head.shape[-1]
    fits = isinstance(logits, torch.Tensor) and logits.shape == (1, outputs)
    if not fits or not torch.allclose(logits, by_head, rtol=1e-4, atol=1e-5):
        raise InputError(
            f"the logits of the model {name!r} are not the output of its classifier for the penultimate features, so "
            "an objective cannot train it. Choose another"
        )


def replace_classifier(classifier: nn.Module, head: nn.Module, *, name: str = "model") -> None:
    """Replace the linear classifier of a timm-like model by a head, wherever it is in the model."""
    linear = _linear(classifier, name)
    paths = [path for path, module in classifier.named_modules() if module is linear]
    classifier.set_submodule(paths[0], head)


def _linear(classifier: Any, name: str) -> nn.Linear:
    found = classifier.get_classifier()
    if not isinstance(found, nn.Linear) or not any(module is found for module in classifier.modules()):
        raise InputError(
            f"the model {name!r} ends in {type(found).__name__}, not in one linear layer, so its classifier "
            "cannot be trained or replaced here. Choose another"
        )
    return found


def _guarded(owner: str, build: Any, *arguments: Any, **params: Any) -> Any:
    """Call a plugin's builder; its errors become an InputError of one line."""
    try:
        return build(*arguments, **params)
    except HarnessError:
        raise
    except BUILDING_ERRORS as error:
        raise InputError(f"{owner} cannot be built: {describe(error)}") from None
