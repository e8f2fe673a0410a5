"""Scorers of strangers, each in a worker process of its own: whatever it does there, only its own cells are lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from harness.base.strangers import undisturbed
from harness.base.worker import Limits, Worker, WorkerError
from harness.contract.protocols import ImageScorer
from harness.contract.registry import OWN, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from harness.contract.features import Features, FitData
    from harness.contract.protocols import Classifier
    from harness.contract.registry import Offered

NONE: Final = "none"
FOREIGN: Final = "foreign"
ALL: Final = "all"


@dataclass(frozen=True)
class Isolation:
    """Whose scorers run in worker processes, and what one of them may take."""

    whose: Literal["none", "foreign", "all"] = NONE
    limits: Limits = field(default_factory=Limits)

    def covers(self, offered: Offered) -> bool:
        """Return whether an offer's scorers run in worker processes."""
        is_foreign = offered.plugin.partition(":")[0] != OWN
        return self.whose == ALL or (self.whose == FOREIGN and is_foreign)


class Address(NamedTuple):
    """How a worker finds a scorer's builder."""

    plugin: str
    files: tuple[Path, ...]  # all plugins that are files: the classes of what is sent may be theirs
    name: str
    params: dict[str, object]


class IsolatedScorer:
    """A Scorer that lives in a worker."""

    def __init__(self, worker: Worker, device: str) -> None:
        self.worker, self.device = worker, device

    def score(self, features: Features) -> Tensor:
        """Return its scores."""
        scores: Tensor = self.worker.call(_score, features, self.device)
        return scores


class IsolatedImageScorer(IsolatedScorer):
    """An ImageScorer that lives in a worker. The worker keeps the first classifier that it gets."""

    def __init__(self, worker: Worker, device: str) -> None:
        super().__init__(worker, device)
        self._has_classifier = False

    def score_images(self, images: Tensor, classifier: Classifier) -> Tensor:
        """Return its scores."""
        scores: Tensor = self.with_classifier(classifier).call(_score_images, images, self.device)
        return scores

    def with_classifier(self, classifier: Classifier) -> Worker:
        """Return the worker, which has a copy of the classifier as `state["classifier"]`."""
        if not self._has_classifier:
            try:
                self.worker.call(_keep_classifier, classifier)
            except WorkerError as error:
                raise WorkerError(
                    f"the model cannot be copied to a worker process ({error}). Use --isolate none"
                ) from None
            self._has_classifier = True
        return self.worker


def isolated(
    offered: Offered, params: Mapping[str, object], data: FitData, isolation: Isolation, *, device: str
) -> IsolatedScorer:
    """Build a scorer in a worker, and fit it there. Raises WorkerError for what it raises."""
    worker = Worker(isolation.limits, imports=__name__)
    address = Address(offered.plugin, offered.files, offered.spec.name, dict(params))
    reads_images = worker.call(_start, address, data, device)
    return IsolatedImageScorer(worker, device) if reads_images else IsolatedScorer(worker, device)


# In the worker ------------------------------------------------------------------------------------------------------


def _start(state: dict[str, Any], address: Address, data: FitData, device: str) -> bool:
    """Build and fit the scorer; return whether it reads images."""
    registry = Registry.only(address.plugin, address.files)
    with undisturbed(device):
        built = registry.get("scorer", address.name).spec.build(**address.params)
        state["object"] = built.fit(data) if hasattr(built, "fit") else built
    return isinstance(state["object"], ImageScorer)


def _keep_classifier(state: dict[str, Any], classifier: Classifier) -> None:
    state["classifier"] = classifier


def _score(state: dict[str, Any], features: Features, device: str) -> Any:
    import torch

    with torch.no_grad(), undisturbed(device):
        return without_gradients(state["object"].score(features))


def _score_images(state: dict[str, Any], images: Tensor, device: str) -> Any:
    with undisturbed(device):
        return without_gradients(state["object"].score_images(images, state["classifier"]))


def without_gradients(scores: Any) -> Any:
    """Return a tensor that can travel; anything else as it is: whoever asked says what is wrong with it."""
    import torch

    return scores.detach() if isinstance(scores, torch.Tensor) else scores
