"""What a scorer costs follows from what it needs."""

from __future__ import annotations

import pytest

import harness


@pytest.mark.parametrize(
    ("needs", "cost", "passes"),
    [
        ({"logits"}, "pass", 0),
        ({"layers", "train", "head"}, "pass", 0),
        ({"images"}, "passes", 1),
        ({"images", "gradients"}, "gradients", 1),
        ({"penultimate", "stream"}, "adapts", 1),
        ({"stream", "images", "gradients"}, "adapts", 1),
    ],
)
def test_the_cost_follows_from_the_needs(needs: set[str], cost: str, passes: int) -> None:
    spec = harness.ScorerSpec("mine", lambda: None, needs=needs)  # type: ignore[arg-type,return-value]  # never built
    assert (spec.cost, spec.passes) == (cost, passes)


def test_more_passes_are_declared() -> None:
    spec = harness.ScorerSpec("mine", lambda: None, needs={"images"}, passes=8)  # type: ignore[arg-type,return-value]
    assert (spec.cost, spec.passes) == ("passes", 8)


@pytest.mark.parametrize(("needs", "passes"), [({"logits"}, 2), ({"images"}, 0), ({"stream"}, -1)])
def test_passes_that_contradict_the_needs_are_refused(needs: set[str], passes: int) -> None:
    with pytest.raises(harness.InputError, match=f"declares {passes} passes"):
        harness.ScorerSpec("mine", lambda: None, needs=needs, passes=passes)  # type: ignore[arg-type,return-value]
