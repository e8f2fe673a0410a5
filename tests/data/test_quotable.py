"""Which protocol a reader may quote, from what the data state about themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness import Selection
from harness.data.quotable import quotable_protocol

PARTS = ["id.train", "id.validation", "id.test", "near/a", "near/b", "far/c", "csid/d"]
PLACES = {"id": "id.test", "id.validation": "id.validation", "a": "near", "b": "near", "c": "far"}


class Listed:
    """Four images that state a protocol."""

    def __init__(self, part: str | None, *, name: str = "P", original: bool = True) -> None:
        stated = {"name": name, "part": part, "parts": PARTS, "original": original}
        self.facts: dict[str, Any] = {"protocol": stated} if part else {}
        self.digest = "0"
        self.labels = np.array([0, 1, 0, 1])

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> np.ndarray:
        return np.zeros((2, 2), dtype=np.uint8)

    def identity(self, index: int) -> bytes:
        return bytes([index])


def listed(part: str | None, **facts: Any) -> Selection:
    return Selection.all_of("set", Listed(part, **facts))


@pytest.fixture
def sets() -> dict[str, Selection]:
    """Two complete groups with the ID parts that they are scored against."""
    parts = {"id": "id.test", "id.validation": "id.validation", "a": "near/a", "b": "near/b", "c": "far/c"}
    return {name: listed(part) for name, part in parts.items()}


def quoted(sets: dict[str, Selection], **places: str) -> str | None:
    return quotable_protocol(sets, {**PLACES, **places})


def test_complete_groups_of_original_sets_may_be_quoted(sets: dict[str, Selection]) -> None:
    assert quoted(sets) == "P, original lists"
    assert quoted({name: sets[name] for name in ("id", "c")}) == "P, original lists"


def test_data_that_state_no_protocol_have_none(sets: dict[str, Selection]) -> None:
    assert quoted({**sets, "id": listed(None)}) is None


@pytest.mark.parametrize(
    ("name", "changed", "difference"),
    [
        ("a", listed(None), "a is not one of its sets for near"),
        ("a", listed("near/a", name="Q"), "a is not one of its sets for near"),
        ("a", listed("near/a", original=False), "a is not the original list"),
        ("id.validation", listed("id.train"), "id.validation is not one of its sets for id.validation"),
        ("c", listed("near/a"), "c is not one of its sets for far"),
        ("c", listed("far/c").limited(3), "c is read in part"),
        ("id", listed("id.test").with_classes([1, 0]), "id is read in part"),
        ("id", replace(listed("id.test"), labels=np.array([1, 0, 1, 0])), "id is read in part"),
        ("b", listed("near/a"), "near/a is read twice"),
    ],
)
def test_each_difference_makes_them_own_data_and_is_named(
    sets: dict[str, Selection], name: str, changed: Selection, difference: str
) -> None:
    found = quoted({**sets, name: changed})
    assert found is not None
    assert found.startswith("own data in the form of P: ")
    assert difference in found


def test_a_set_that_a_group_lacks_is_named(sets: dict[str, Selection]) -> None:
    del sets["b"]
    assert quoted(sets) == "own data in the form of P: without near/b"


def test_a_set_in_another_group_is_named(sets: dict[str, Selection]) -> None:
    assert quoted(sets, a="far") == "own data in the form of P: a is not one of its sets for far"
