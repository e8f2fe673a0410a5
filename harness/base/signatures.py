"""Checks a suite's parameters against the signature of the builder that receives them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from harness.base.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def checked_parameters(
    build: Callable[..., Any], params: Mapping[str, object], *, owner: str, given: int = 0
) -> dict[str, Any]:
    """Return the parameters as keywords; raise UnknownNameError for the first one that the builder does not take.

    The first `given` parameters are passed by position and cannot be named.
    """
    parameters = list(inspect.signature(build).parameters.values())[given:]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        valid = [parameter.name for parameter in parameters]
        for name in params:
            if name not in valid:
                raise unknown_name(f"parameter of {owner}", name, valid, valid_label="Valid")
    return dict(params)
