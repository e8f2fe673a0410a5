"""Checks the parameters that a suite gives to a plugin's builder: their names, and their annotated types."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from operator import eq
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.base.deferred import unwrapped
from harness.base.errors import HarnessError, InputError, unknown_name
from harness.base.strangers import RAISED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.contract.protocols import Catalogue
    from harness.contract.registry import Offered

_TAKES_A_REQUEST = ("dataset", "model")  # kinds whose builders take a request before the parameters


def offer_taking(catalogue: Catalogue, kind: str, name: str, params: Mapping[str, object]) -> Offered:
    """Return the offer of one name.

    Raises UnknownNameError for a name or a parameter that is not offered, InputError for a value of another type than
    the builder's annotation. Only scalars are checked: int, float, str, bool, Literal, and unions of them.
    """
    offered: Offered = catalogue.get(kind, name)
    parameters = own_parameters(kind, offered.spec.build)
    known = {parameter.name: parameter for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for param, value in params.items():
        if param in known:
            _require_type(f"{param} of {kind} {name}", value, known[param].annotation)
        elif not takes_any:
            raise unknown_name(f"parameter of {kind} {name}", param, known, valid_label="Valid")
    return offered


def parameters_of(catalogue: Catalogue, kind: str, name: str) -> set[str]:
    """Return the names of the parameters that an offer's builder takes; none for a name that is not offered."""
    try:
        build = catalogue.get(kind, name).spec.build
    except HarnessError:
        return set()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name for parameter in own_parameters(kind, build) if parameter.kind in named}


def own_parameters(kind: str, build: Callable[..., Any]) -> list[inspect.Parameter]:
    """List the parameters of a builder that a user may give; annotations are evaluated if they can be."""
    return _parameters(build)[1 if kind in _TAKES_A_REQUEST else 0 :]


def _parameters(build: Callable[..., Any]) -> list[inspect.Parameter]:
    names = getattr(sys.modules.get(unwrapped(build).__module__), "__dict__", {})
    return [_evaluated(each, names) for each in inspect.signature(build).parameters.values()]


def _evaluated(parameter: inspect.Parameter, names: dict[str, Any]) -> inspect.Parameter:
    """Evaluate an annotation that is written as a string; one that is there for type checkers only stays a string."""
    if not isinstance(parameter.annotation, str):
        return parameter
    try:
        found = get_type_hints(SimpleNamespace(__annotations__={"it": parameter.annotation}), names)
    except RAISED:
        return parameter
    return parameter.replace(annotation=found["it"])


def _require_type(what: str, value: object, annotation: Any) -> None:
    options = _options(annotation)
    if options is not None and not any(option.takes(value) for option in options):
        valid = " or ".join(option.name for option in options if option is not _NOTHING)
        raise InputError(f"{what} is {value!r}. Give {valid}")


@dataclass(frozen=True)
class _Option:
    """One type or value that an annotation allows."""

    name: str
    takes: Callable[[object], bool]


_NOTHING = _Option("nothing", lambda value: value is None)
_SCALARS = {  # NumPy's numbers count as Python's; a bool is no number
    int: _Option("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: _Option("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    str: _Option("a string", lambda value: isinstance(value, str)),
    bool: _Option("true or false", lambda value: isinstance(value, bool)),
    NoneType: _NOTHING,
}


def _options(annotation: Any) -> list[_Option] | None:
    """List the scalars that an annotation allows; None if it is no annotation of scalars."""
    if isinstance(annotation, type) and annotation in _SCALARS:
        return [_SCALARS[annotation]]
    if get_origin(annotation) is Literal:
        return [_Option(repr(valid), partial(eq, valid)) for valid in get_args(annotation)]
    if get_origin(annotation) not in (Union, UnionType):
        return None
    parts = [_options(part) for part in get_args(annotation)]
    return None if None in parts else [option for part in parts for option in part or ()]
