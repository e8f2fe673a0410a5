"""The outputs of a model and the classes of the data, matched by name: class c of the data is output c.

A model may number its classes in another order than the data, or know more classes than the data show. Its outputs are
then put in the data's order, the other outputs behind them, so that everything downstream compares equal numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from harness.base.errors import InputError, shortened
from harness.data.classes import numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.specs import Model
    from harness.data.classes import DataClasses

NAME, NUMBER, MAP = "name", "number", "map"  # what classes are matched by


class Reordered(nn.Module):
    """A classifier whose outputs are put in another order. Features and layers are those of the network."""

    order: Tensor

    def __init__(self, network: Any, order: Tensor) -> None:
        """Take a Classifier, and the network's output for each new position, (K,)."""
        super().__init__()
        self.network = network
        self.register_buffer("order", order)
        self.feature_info = [
            {**entry, "module": f"network.{entry['module']}"} for entry in _layers_of(network)
        ]
        self.output_fmt = getattr(network, "output_fmt", None)

    def forward_features(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to the network's last feature map."""
        maps: Tensor = self.network.forward_features(images)
        return maps

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the feature map to logits (N, K) in the new order, or to penultimate features (N, D)."""
        found: Tensor = self.network.forward_head(features, pre_logits=pre_logits)
        return found if pre_logits else self.in_order(found)

    def get_classifier(self) -> nn.Module:
        """Return the network's last step, which gives the outputs in the network's own order."""
        module: nn.Module = self.network.get_classifier()
        return module

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, channels, H, W) to logits (N, K) in the new order."""
        logits: Tensor = self.network(images)
        return self.in_order(logits)

    def in_order(self, logits: Tensor) -> Tensor:
        """Put logits (N, K') in the new order; outputs beyond the K classes stay behind them."""
        return in_order(logits, self.order)


def in_order(logits: Tensor, order: Tensor) -> Tensor:
    """Put logits (N, K') in the order (K,); outputs beyond the K stay behind them."""
    return torch.cat([logits[:, order], logits[:, len(order) :]], dim=1)


def matched(
    model: Model,
    data: DataClasses,
    *,
    label: str,
    class_map: Mapping[str, str] | None = None,
) -> tuple[Model, dict[str, Any]]:
    """Put a model's outputs in the order of the data's classes; return it, and how they were matched.

    Classes are matched by the map if there is one, else by name if both sides have names, else by number. The first
    outputs are those of the data's classes, the others follow in the network's order.

    Args:
        model: with K outputs or classes.
        data: C classes, C <= K.
        label: the model's name, for messages.
        class_map: for each class of the data, by name or number, the model's, by name or number.

    Raises InputError if the model lacks a class, with the names, or has fewer classes, with both numbers.

    """
    _require_names(model, label)
    if model.num_classes < data.count:
        hint = "" if data.names is not None else ", which also renumber labels that start at 1 or have gaps"
        raise InputError(
            f"the model {label!r} has {model.num_classes} classes, the suite's ID data have {data.count}. "
            f"Give a model of the suite's classes, or keep fewer with [id] classes{hint}"
        )
    if class_map is not None:
        by, numbers = MAP, _by_map(model, data, class_map, label)
    elif data.names is not None and model.class_names is not None:
        by, numbers = NAME, _by_name(data.names, model, label)
    else:
        by, numbers = NUMBER, _by_number(model, data, label)
    _require_distinct(numbers, model, data, label)
    facts = {"data": data.count, "model": model.num_classes, "matched": by}
    return _with_order(model, numbers), facts


def _by_name(names: Sequence[str], model: Model, label: str) -> NDArray[np.int64]:
    known = model.class_names or ()
    if tuple(names) == known:  # which need not be distinct
        return np.arange(len(known))
    numbers = numbers_of(names, known, model.class_synonyms)
    unknown = [name for name, number in zip(names, numbers, strict=True) if number < 0]
    if unknown:
        raise InputError(
            f"the model {label!r} does not know the classes {shortened(unknown)} of the ID data by name. It knows "
            f"{shortened(known)}. {_FIX}"
        )
    return numbers


def _by_number(model: Model, data: DataClasses, label: str) -> NDArray[np.int64]:
    if model.num_classes > data.count and (data.names is not None or data.renumbered):
        raise InputError(
            f"the model {label!r} has {model.num_classes} classes without names, the suite's ID data have "
            f"{data.count}, so that it is not known which output is which class. {_FIX}"
        )
    return np.arange(data.count)


def _by_map(model: Model, data: DataClasses, class_map: Mapping[str, str], label: str) -> NDArray[np.int64]:
    titles = data.names or tuple(str(number) for number in range(data.count))
    absent = [name for name in titles if name not in class_map]
    if absent:
        raise InputError(
            f"the class_map of {label!r} has no line for the classes {shortened(absent)} of the ID data. "
            "Give each a line: the data's class, a tab or comma, the model's class or output number"
        )
    return np.array([_output(class_map[name], model, label) for name in titles], dtype=np.int64)


def _output(given: str, model: Model, label: str) -> int:
    """Find an output by the name or number that a class_map gives."""
    if model.class_names is not None:
        number = int(numbers_of([given], model.class_names, model.class_synonyms)[0])
        if number >= 0:
            return number
    if given.isdecimal() and int(given) < model.num_classes:
        return int(given)
    known = f" or a name: {shortened(model.class_names)}" if model.class_names is not None else ""
    raise InputError(
        f"the class_map of {label!r} names the model's class {given!r}. Give a number from 0 to "
        f"{model.num_classes - 1}{known}"
    )


def _require_names(model: Model, label: str) -> None:
    for names in (model.class_names, model.class_synonyms):
        if names is not None and len(names) != model.num_classes:
            raise InputError(
                f"the model {label!r} states names for {len(names)} of its {model.num_classes} classes. "
                "Give one per class"
            )


def _require_distinct(numbers: NDArray[np.int64], model: Model, data: DataClasses, label: str) -> None:
    found, counts = np.unique(numbers, return_counts=True)
    for number in found[counts > 1].tolist():
        alike = [data.names[c] if data.names else c for c in np.flatnonzero(numbers == number).tolist()]
        named = repr(model.class_names[number]) if model.class_names else number
        raise InputError(
            f"the classes {shortened(alike)} of the ID data are one class of the model {label!r}, {named}. "
            "Keep one of them with [id] classes"
        )


def _with_order(model: Model, numbers: NDArray[np.int64]) -> Model:
    rest = np.setdiff1d(np.arange(model.num_classes), numbers)
    order = np.concatenate([numbers, rest])
    if np.array_equal(order, np.arange(model.num_classes)):
        return model
    network: Any = model.classifier
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    wrapped: Any = Reordered(network, torch.as_tensor(order, device=device)).eval()

    def in_order(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(names[n] for n in order)

    return replace(
        model,
        classifier=wrapped,
        class_names=in_order(model.class_names),
        class_synonyms=in_order(model.class_synonyms),
    )


def _layers_of(network: Any) -> list[dict[str, Any]]:
    return [dict(entry) for entry in getattr(network, "feature_info", None) or [] if "module" in entry]


_FIX = (
    'Give [[models]] class_map = "FILE", with a line for each class: its name in the data, a tab or comma, and its '
    "name or number in the model"
)
