"""The network that a training optimises, and the time that its first steps take on one CPU thread and on all."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from harness.base.seeding import derived_seed, reseed
from harness.contract.protocols import ViewObjective

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from torch import Tensor, nn

    from harness.base.threads import ThreadChoice
    from harness.contract.protocols import Objective
    from harness.contract.specs import Model


def trained_network(model: Model, objective: Objective, seed: int) -> nn.Module:
    """Return the module to optimise: the classifier, or what an objective on views builds around it."""
    classifier: Any = model.classifier
    if not isinstance(objective, ViewObjective):
        return classifier  # type: ignore[no-any-return]
    with torch.inference_mode():
        image = torch.zeros(1, *model.preprocessing.input_size)
        features = classifier.eval().forward_head(classifier.forward_features(image), pre_logits=True)
    reseed(derived_seed(seed, "around"))  # else its weights repeat the random numbers of the encoder
    return objective.around(classifier, features.shape[1])


def time_steps(
    choice: ThreadChoice,
    network: nn.Module,
    objective: Objective,
    batch: tuple[Tensor, Tensor],
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
) -> None:
    """Pass one batch forwards and backwards through a copy, until the number of threads is chosen.

    Nothing else changes. So weights depend on the number of threads, and not on how it was found.
    """
    inputs, labels = batch
    trial, loss = copy.deepcopy((network.train(), objective))
    while choice.chosen is None:
        with choice.turn():
            with autocast():
                outputs = trial(inputs)
            loss.loss(outputs.float(), labels).backward()  # type: ignore[no-untyped-call]
