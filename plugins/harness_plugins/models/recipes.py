"""Models that are trained on a suite's ID data at first use, and read from the store afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    """Offer `recipe:NAME_OR_PATH`."""
    yield harness.ModelSpec(
        "recipe",
        build_recipe,
        argument="NAME or PATH",
        takes="recipe",
        check=check_recipe,
        epochs=epochs_of,
    )


def build_recipe(request: harness.ModelRequest, **changes: Any) -> harness.Model:
    """Load the model that a recipe trained on the suite's ID data, or train and store it.

    `changes` are keys of the recipe with other values.
    """
    return harness.build_recipe(_name(request), request, **changes)


def check_recipe(request: harness.ModelRequest, **changes: Any) -> None:
    """Raise HarnessError for a recipe that is not there or does not fit the request's data."""
    harness.check_recipe(_name(request), request, **changes)


def epochs_of(request: harness.ModelRequest, **changes: Any) -> tuple[int, ...]:
    """Return the epochs whose weights the recipe keeps."""
    return harness.recipe_epochs(_name(request), request, **changes)


def _name(request: harness.ModelRequest) -> str:
    if not request.argument:
        raise harness.InputError("recipe names no recipe. Write recipe:NAME")
    return request.argument
