"""Checks the parameters that a suite gives to a plugin's builder: their names, and their annotated types."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from harness.base.errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.contract.protocols import Catalogue
    from harness.contract.registry import Offered

_TAKES_A_REQUEST = ("dataset", "model")  # kinds whose builders take a request before the parameters
_SCALARS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    NoneType: "nothing",
}


def offer_taking(catalogue: Catalogue, kind: str, name: str, params: Mapping[str, object]) -> Offered:
    """Return the offer of one name.

    Raises UnknownNameError for a name or a parameter that is not offered, InputError for a value of another type than
    the builder's annotation. Only scalars are checked: int, float, str, bool, Literal, and unions of them.
    """
    offered: Offered = catalogue.get(kind, name)
    parameters = _parameters(offered.spec.build)[1 if kind in _TAKES_A_REQUEST else 0 :]
    known = {parameter.name: parameter for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for param, value in params.items():
        if param in known:
            _require_type(f"{param} of {kind} {name}", value, known[param].annotation)
        elif not takes_any:
            raise unknown_name(f"parameter of {kind} {name}", param, known, valid_label="Valid")
    return offered


def _parameters(build: Callable[..., Any]) -> list[inspect.Parameter]:
    target = getattr(build, "target", build)  # of a deferred builder
    try:
        return list(inspect.signature(target, eval_str=True).parameters.values())
    except Exception:  # an annotation that is there for type checkers only cannot be evaluated
        return list(inspect.signature(target).parameters.values())


def _require_type(what: str, value: object, annotation: Any) -> None:
    options = _options(annotation)
    if options is None:
        return
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError:
        raise InputError(f"{what} is {value!r}. Give {' or '.join(options)}") from None


def _options(annotation: Any) -> list[str] | None:
    """Describe the scalars that an annotation allows; None if it is no annotation of scalars."""
    if annotation in _SCALARS:
        return [_SCALARS[annotation]]
    if get_origin(annotation) is Literal:
        return [repr(value) for value in get_args(annotation)]
    if get_origin(annotation) not in (Union, UnionType):
        return None
    found = [_options(part) for part in get_args(annotation)]
    named = [option for options in found for option in options or () if option != _SCALARS[NoneType]]
    return None if None in found else named
