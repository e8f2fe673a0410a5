"""Models that are trained on a suite's ID data at first use, and read from the store afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    """Offer `recipe:NAME_OR_PATH`."""
    yield harness.ModelSpec("recipe", build_recipe, argument="NAME or PATH", takes="recipe")


def build_recipe(request: harness.ModelRequest) -> harness.Model:
    """Load the recipe's model for the request's data and seed from the store, or train and store it."""
    if not request.argument:
        raise harness.InputError("recipe names no recipe. Write recipe:NAME")
    return harness.build_recipe(request.argument, request)
