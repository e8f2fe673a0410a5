"""The estimators that the command `estimate` runs: those that are named, or all that suit the model."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError
from harness.engine.plan import Planned, taken
from harness.engine.suite import PluginEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract.isolated import Isolation
    from harness.contract.registry import Registry

LONG = 20  # passes; estimators that take more are long


def parse(text: str) -> PluginEntry:
    """Read NAME or NAME:KEY=VALUE,KEY=VALUE. A value is written as in a suite; a string may go without its quotes."""
    name, colon, given = text.partition(":")
    params: dict[str, Any] = {}
    for pair in given.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals and value) or key == "name" or key in params:
            raise InputError(
                f"{text!r} is no estimator: {pair!r} is no new parameter. Write NAME:KEY=VALUE,KEY=VALUE, as in "
                "NAME:steps=40"
            )
        params[key] = _value(value)
    return PluginEntry.model_validate({"name": name, **params})


def planned(names: Sequence[str], registry: Registry, isolation: Isolation) -> list[Planned]:
    """Resolve the named estimators, or all, cheapest first.

    Raises HarnessError for an unknown name or parameter, a value of another type, and for one that is named twice.
    """
    entries = [parse(name) for name in names or registry.names("estimator")]
    found = [Planned(*taken("estimator", entry, registry, isolation)) for entry in entries]
    labels = [one.label for one in found]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"the estimator {label!r} is named twice. Name it once, or with other parameters"
            )
    return sorted(found, key=lambda one: one.offered.spec.passes)


def suits(one: Planned, classes: int) -> bool:
    """Return whether an estimator runs on a model of so many classes unless it is named.

    One that was fitted elsewhere does on models of as many classes as there. Else one that takes long does not.
    """
    spec = one.offered.spec
    return not is_long(one) if spec.reference is None else bool(spec.reference.classes == classes)


def is_long(one: Planned) -> bool:
    """Return whether an estimator takes so many passes that a curve, of twenty sets, is fitted for it only if named."""
    return bool(one.offered.spec.passes > LONG)


def default_model(registry: Registry) -> str:
    """Return the model of the first reference. Raises InputError if no estimator has one."""
    for offered in registry.offers("estimator"):
        if offered.spec.reference is not None:
            return str(offered.spec.reference.name)
    raise InputError("no installed estimator names a model that it was fitted on. Name a model with --model")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
