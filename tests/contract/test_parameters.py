"""The parameters of a builder: which a user may give, and what their types allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import InputError, UnknownNameError
from harness.contract.parameters import offer_taking, own_parameters
from harness.contract.registry import Registry

PLUGIN = '''
from __future__ import annotations
from typing import TYPE_CHECKING, Literal
import harness
if TYPE_CHECKING:
    from somewhere import Unknown

def build(k: int = 5, kind: Literal["a", "b"] = "a", other: Unknown | None = None):
    """Build."""

@harness.hookimpl
def harness_scorers():
    yield harness.ScorerSpec("typed", build)
'''


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": "5"}, "k of scorer typed is '5'. Give a whole number"),
        ({"kind": "c"}, "kind of scorer typed is 'c'. Give 'a' or 'b'"),
    ],
)
def test_a_type_that_is_for_type_checkers_only_leaves_the_others_checked(
    given: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "typed.py"
    path.write_text(PLUGIN)
    registry = Registry.load([path], blocked=())
    offer_taking(registry, "scorer", "typed", {"k": 1, "kind": "b", "other": "anything"})
    with pytest.raises(InputError) as raised:
        offer_taking(registry, "scorer", "typed", given)
    assert str(raised.value) == message


def test_first_party_adapters_check_their_numbers(catalogue: Registry) -> None:
    with pytest.raises(InputError, match="steps of adapter tent is '2'. Give a whole number"):
        offer_taking(catalogue, "adapter", "tent", {"steps": "2"})


@pytest.mark.parametrize("name", ["num_outputs", "input_size", "request"])
def test_what_an_architecture_gets_of_its_recipe_is_no_parameter(name: str, catalogue: Registry) -> None:
    with pytest.raises(UnknownNameError, match=f"no parameter of model cnn named '{name}'"):
        offer_taking(catalogue, "model", "cnn", {name: 3})


def test_a_builtin_may_be_a_builder() -> None:
    assert [each.name for each in own_parameters("scorer", sorted)] == ["iterable", "key", "reverse"]
