"""Objects of strangers' plugins, each in a worker process: whatever one does there, only its own cells are lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from harness.base.seeding import repeatable_kernels
from harness.base.strangers import undisturbed
from harness.base.worker import Limits, TravelError, Worker, WorkerError
from harness.contract.protocols import ImageScorer
from harness.contract.registry import OWN, Registry
from harness.contract.specs import STREAM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from harness.contract.features import (
        Estimate,
        Features,
        FeatureSet,
        FitData,
        Measurement,
        StreamScores,
        Unlabelled,
    )
    from harness.contract.protocols import Classifier
    from harness.contract.registry import Offered

NONE: Final = "none"
FOREIGN: Final = "foreign"
ALL: Final = "all"


@dataclass(frozen=True)
class Isolation:
    """Whose objects live in worker processes, and the limits of a worker."""

    whose: Literal["none", "foreign", "all"] = NONE
    limits: Limits = field(default_factory=Limits)

    def covers(self, offered: Offered) -> bool:
        """Return whether an offer's objects live in worker processes."""
        is_foreign = offered.plugin.partition(":")[0] != OWN
        return self.whose == ALL or (self.whose == FOREIGN and is_foreign)


class Address(NamedTuple):
    """How a worker finds a builder, and the parameters that it takes."""

    plugin: str
    files: tuple[Path, ...]  # all plugins that are files: the classes of what is sent may be theirs
    kind: str
    name: str
    params: dict[str, object]

    @classmethod
    def of(cls, offered: Offered, params: Mapping[str, object]) -> Address:
        """Return an offer's address, with parameters."""
        return cls(offered.plugin, offered.files, offered.kind, offered.spec.name, dict(params))


class Isolated:
    """What lives in a worker. A worker that ended is replaced at the next call, unless it was ended for its time."""

    def __init__(
        self, isolation: Isolation, device: str, address: Address, start: Callable[..., Any], *arguments: Any
    ) -> None:
        """Start a worker, which loads the plugin; `start(state, *arguments)` is then its first call.

        In the worker, `state["build"]()` builds the object of the address.
        """
        self.device, self._limits, self._address = device, isolation.limits, address
        self._start = start, arguments
        self.worker, self.started = self._new()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(state, *arguments)` of a worker that has been started. Raises WorkerError."""
        if self.worker.ended and not self.worker.is_late:
            self.worker, self.started = self._new()
        return _called(self.worker, function, *arguments)

    def _new(self) -> tuple[Worker, Any]:
        worker = _loaded(self._limits, self._address)
        function, arguments = self._start
        return worker, _called(worker, function, *arguments)


def _loaded(limits: Limits, address: Address) -> Worker:
    """Start a worker that has loaded a plugin: what is sent afterwards may be of the plugin's classes."""
    worker = Worker(limits, imports=__name__)
    _called(worker, _load, address)
    return worker


def _called(worker: Worker, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return worker.call(function, *arguments)
    except TravelError as error:
        raise WorkerError(f"{error}. Use --isolate none") from None


@dataclass(frozen=True, eq=False)
class _Remote:
    of: Isolated


class IsolatedScorer(_Remote):
    """A Scorer that lives in a worker."""

    def score(self, features: Features) -> Tensor:
        """Return its scores."""
        scores: Tensor = self.of.call(_score, features, self.of.device)
        return scores


class IsolatedImageScorer(_Remote):
    """An ImageScorer that lives in a worker. A worker keeps the first classifier that it gets."""

    def score_images(self, images: Tensor, classifier: Classifier) -> Tensor:
        """Return its scores."""
        scores: Tensor = self.call(_score_images, images, self.of.device, classifier=classifier)
        return scores

    def call(self, function: Callable[..., Any], *arguments: Any, classifier: Classifier) -> Any:
        """Return `function(state, *arguments)`, with a copy of the classifier in `state["classifier"]`."""
        if not self.of.call(_has_classifier):
            self.of.call(_keep_classifier, classifier)
        return self.of.call(function, *arguments)


class IsolatedStreamScorer(_Remote):
    """A StreamScorer that lives in a worker."""

    def score_stream(self, stream: Unlabelled) -> StreamScores:
        """Return its scores."""
        scores: StreamScores = self.of.call(_score_stream, stream, self.of.device)
        return scores


class IsolatedProbe(_Remote):
    """A Probe that lives in a worker."""

    def measure(self, features: FeatureSet) -> Measurement:
        """Return its number."""
        found: Measurement = self.of.call(_measure, features, self.of.device)
        return found


class IsolatedEstimator(_Remote):
    """An Estimator that lives in a worker."""

    def estimate(self, target: Unlabelled) -> Estimate:
        """Return its estimate."""
        found: Estimate = self.of.call(_estimate, target, self.of.device)
        return found


def isolated(
    offered: Offered, params: Mapping[str, object], data: FitData, isolation: Isolation, *, device: str
) -> Any:
    """Build a scorer, probe or estimator in a worker, and fit it there. Raises WorkerError for what it raises."""
    remote = Isolated(isolation, device, Address.of(offered, params), _start, data, device)
    if offered.kind == "probe":
        return IsolatedProbe(remote)
    if offered.kind == "estimator":
        return IsolatedEstimator(remote)
    if STREAM in offered.spec.needs:
        return IsolatedStreamScorer(remote)
    reads_images = remote.started
    return IsolatedImageScorer(remote) if reads_images else IsolatedScorer(remote)


def try_to_build(offered: Offered, params: Mapping[str, object], isolation: Isolation) -> None:
    """Build an object, in a worker if its offer is isolated, and forget it. Raises what the builder raises."""
    if isolation.covers(offered):
        _loaded(isolation.limits, Address.of(offered, params)).call(_try_to_build)
    else:
        offered.spec.build(**params)


# In the worker ------------------------------------------------------------------------------------------------------


def _load(state: dict[str, Any], address: Address) -> None:
    """Load the plugin, and keep the builder."""
    offered = Registry.only(address.plugin, address.files).get(address.kind, address.name)
    state["build"] = partial(offered.spec.build, **address.params)


def _start(state: dict[str, Any], data: FitData, device: str) -> bool:
    """Build and fit the object; return whether it scores images."""
    with undisturbed(device):
        built = state["build"]()
        state["object"] = built.fit(data) if hasattr(built, "fit") else built
    return isinstance(state["object"], ImageScorer)


def _try_to_build(state: dict[str, Any]) -> None:
    state["build"]()


def _has_classifier(state: dict[str, Any]) -> bool:
    return "classifier" in state


def _keep_classifier(state: dict[str, Any], classifier: Classifier) -> None:
    state["classifier"] = classifier


def _score(state: dict[str, Any], features: Features, device: str) -> Any:
    import torch

    with torch.no_grad(), undisturbed(device):
        return without_gradients(state["object"].score(features))


def _score_images(state: dict[str, Any], images: Tensor, device: str) -> Any:
    with repeatable_kernels(), undisturbed(device):
        return without_gradients(state["object"].score_images(images, state["classifier"]))


def _score_stream(state: dict[str, Any], stream: Unlabelled, device: str) -> Any:
    with undisturbed(device):
        return state["object"].score_stream(stream)


def _measure(state: dict[str, Any], features: FeatureSet, device: str) -> Any:
    import torch

    with torch.no_grad(), undisturbed(device):
        return state["object"].measure(features)


def _estimate(state: dict[str, Any], target: Unlabelled, device: str) -> Any:
    with undisturbed(device):
        return state["object"].estimate(target)


def without_gradients(scores: Any) -> Any:
    """Return a tensor that can travel; anything else as it is: whoever asked says what is wrong with it."""
    import torch

    return scores.detach() if isinstance(scores, torch.Tensor) else scores
