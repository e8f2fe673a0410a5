"""What a suite asks for, resolved before anything runs, and the places of its numbers."""

from __future__ import annotations

from typing import Any

import pytest
from toys import TOY_PLUGIN

from harness.base.errors import InputError
from harness.contract.registry import Registry
from harness.engine.plan import Plan
from harness.evaluations.run import plan_suite


def planned(content: dict[str, Any], **options: Any) -> Plan:
    return plan_suite(content, Registry.load([TOY_PLUGIN]), source="toy.toml", **options)


def test_every_key_of_a_suite_has_its_workers(toy_suite: dict[str, Any]) -> None:
    plan = planned(toy_suite | {"probes": ["mean"]})
    assert list(plan.workers) == ["scorers", "probes", "adapters", "estimators"]
    assert [w.label for w in plan.named("scorers")] == ["level", "margin", "from_train"]
    assert [w.needs for w in plan.named("probes")] == [frozenset({"penultimate"})]
    assert plan.named("nothing") == ()


def test_places_differ_by_all_that_names_them_and_by_nothing_else(toy_suite: dict[str, Any]) -> None:
    toy_suite["models"] = [{"name": "network", "seeds": [0, 1]}]
    plan = planned(toy_suite)
    zero, one = plan.models
    places = [
        plan.cell_id(zero, what="level", on="close"),
        plan.cell_id(one, what="level", on="close"),
        plan.cell_id(zero, what="margin", on="close"),
        plan.cell_id(zero, what="level", on="bright"),
        plan.cell_id(zero, what="level", on="close", adapter="slide"),
        plan.cell_id(zero, what="level", on="close", protocol="mixed"),
    ]
    assert len(set(places)) == len(places)
    again = planned(toy_suite | {"batch_size": 4})
    assert again.cell_id(again.models[0], what="level", on="close") == places[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scorers": ["level", "level"]}, r"two scorers are both 'level'"),
        ({"probes": ["mean", "mean"]}, r"two probes are both 'mean'"),
        ({"models": [{"name": "network"}] * 2}, r"two models are both 'network \(seed 0\)'"),
    ],
)
def test_two_of_one_title_are_refused(
    toy_suite: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        planned(toy_suite | change)


def test_a_limited_plan_has_a_folder_of_its_own(toy_suite: dict[str, Any]) -> None:
    assert planned(toy_suite).folder_name == "toy"
    assert planned(toy_suite, limit=7).folder_name == "toy-limit-7"
    assert {entry.limit for entry in planned(toy_suite, limit=7).sets} == {7}
