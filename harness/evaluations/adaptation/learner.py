"""A copy of the model with the adapter that changes it, in this process or in a worker."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from harness.base.seeding import repeatable_kernels
from harness.base.strangers import undisturbed
from harness.contract.features import Features
from harness.contract.isolated import Isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from harness.contract.features import Adapted
    from harness.contract.isolated import Address, Isolation
    from harness.contract.protocols import Adapter, Classifier


class Learns(Protocol):
    """A model that an adapter changes."""

    def learn(self, batches: Iterator[Tensor]) -> Iterator[Adapted]:
        """Adapt to batches of normalised images, and yield the adapter's answers."""

    def forward(self, images: Tensor) -> Features:
        """Forward normalised images through the model as it is now, without learning."""


class Learner:
    """A copy of the model in this process."""

    def __init__(self, adapter: Adapter, classifier: Classifier) -> None:
        copied: Any = copy.deepcopy(classifier)
        self._adapter, self._classifier = adapter, copied.eval()

    def learn(self, batches: Iterator[Tensor]) -> Iterator[Adapted]:
        """Adapt to the batches."""
        return iter(self._adapter.adapt(self._classifier, batches))

    def forward(self, images: Tensor) -> Features:
        """Forward images through the adapted copy."""
        import torch

        with torch.no_grad():
            maps = self._classifier.forward_features(images)
            return Features(
                logits=self._classifier.forward_head(maps),
                penultimate=self._classifier.forward_head(maps, pre_logits=True),
            )


class IsolatedLearner:
    """A copy of the model in a worker, which keeps the adapter for the next copy."""

    def __init__(
        self,
        address: Address,
        isolation: Isolation,
        device: str,
        *,
        clean: Callable[[], Iterator[Tensor]] | None,
        classifier: Classifier,
    ) -> None:
        """Start a worker; an adapter that is prepared there sees the `clean` batches."""
        arguments = classifier, device, None if clean is None else _asker(clean)
        self._remote = Isolated(isolation, device, address, _start, *arguments)

    def anew(self) -> IsolatedLearner:
        """Begin with a new copy of the model, which has learnt nothing."""
        self._remote.call(_begin, self._remote.device)
        return self

    def learn(self, batches: Iterator[Tensor]) -> Iterator[Adapted]:
        """Adapt to the batches. If the worker ends, the passage does: another worker has learnt nothing."""
        waiting = iter(batches)

        def ask() -> Tensor | None:
            return next(waiting, None)

        while (found := self._remote.worker.call(_next_answer, ask)) is not None:
            yield found[0]

    def forward(self, images: Tensor) -> Features:
        """Forward images through the adapted copy."""
        found: Features = self._remote.worker.call(_forward, images)
        return found


def _asker(clean: Callable[[], Iterator[Tensor]]) -> Callable[[bool], Tensor | None]:
    """Return a function that gives the next batch, from the first on if it is told so."""
    waiting: list[Iterator[Tensor]] = []

    def ask(is_first: bool) -> Tensor | None:
        if is_first:
            waiting[:] = [clean()]
        return next(waiting[0], None)

    return ask


# In the worker ------------------------------------------------------------------------------------------------------


def _start(
    state: dict[str, Any],
    classifier: Classifier,
    device: str,
    clean: Callable[[bool], Tensor | None] | None,
) -> None:
    """Keep the model; prepare an adapter that must see clean images first."""
    state |= {"classifier": classifier, "passage": ExitStack()}
    if clean is not None:
        copied: Any = copy.deepcopy(classifier)
        with undisturbed(device):
            prepared = state["build"]().prepare(copied.eval(), _clean_batches(clean))
        state["build"] = lambda: copy.deepcopy(prepared)


def _clean_batches(ask: Callable[[bool], Tensor | None]) -> Iterator[Tensor]:
    is_first = True
    while (batch := ask(is_first)) is not None:
        yield batch
        is_first = False


def _begin(state: dict[str, Any], device: str) -> None:
    """End the last passage, and begin one with the generators as at every beginning."""
    state["passage"].close()
    state["passage"].enter_context(undisturbed(device))
    learner = state["learner"] = Learner(state["build"](), state["classifier"])
    state["answers"] = learner.learn(_batches(state))


def _batches(state: dict[str, Any]) -> Iterator[Tensor]:
    while (batch := state["ask"]()) is not None:
        yield batch


def _next_answer(state: dict[str, Any], ask: Callable[[], Tensor | None]) -> tuple[Adapted] | None:
    """Return the adapter's next answer; None after the last."""
    state["ask"] = ask  # a function that is asked belongs to its call
    with repeatable_kernels():
        for answer in state["answers"]:
            return (answer,)
    return None


def _forward(state: dict[str, Any], images: Tensor) -> Features:
    learner: Learner = state["learner"]
    with repeatable_kernels():
        return learner.forward(images)
