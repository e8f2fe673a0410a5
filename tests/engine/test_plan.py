"""What a suite asks for, resolved before anything runs, and the places of its numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import TOY_PLUGIN

import harness
from harness.base.errors import InputError
from harness.contract.registry import Registry
from harness.engine.plan import Plan
from harness.evaluations.run import plan_suite


def planned(content: dict[str, Any], **options: Any) -> Plan:
    return plan_suite(content, Registry.load([TOY_PLUGIN]), source="toy.toml", **options)


def test_every_key_of_a_suite_has_its_workers(toy_suite: dict[str, Any]) -> None:
    plan = planned(toy_suite | {"probes": ["mean"]})
    assert list(plan.workers) == ["scorers", "probes", "curves", "adapters", "estimators"]
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


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"name": "knn", "k": 2.5}, "k of scorer knn is 2.5. Give a whole number"),
        ({"name": "knn", "k": True}, "k of scorer knn is True. Give a whole number"),
        ({"name": "gen", "gamma": "0.1"}, "gamma of scorer gen is '0.1'. Give a number"),
        ({"name": "gen", "gamma": False}, "gamma of scorer gen is False. Give a number"),
    ],
)
def test_a_parameter_of_another_type_is_refused_before_anything_runs(
    scorer: dict[str, Any], message: str, toy_suite: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        planned(toy_suite | {"scorers": [scorer]})
    assert planned(toy_suite | {"scorers": [{"name": "gen", "gamma": 1}]}).named("scorers")


def test_one_folder_is_no_five_seeds_and_a_path_may_name_the_seed(toy_suite: dict[str, Any]) -> None:
    one = {"name": "checkpoint:net", "seeds": [0, 1, 2]}
    with pytest.raises(InputError, match=r"is one folder for 3 seeds.*Write \{seed\} in its path"):
        planned(toy_suite | {"models": [one]})
    plan = planned(toy_suite | {"models": [one | {"name": "checkpoint:runs/net-{seed}"}]})
    assert [model.name for model in plan.models] == [f"checkpoint:runs/net-{seed}" for seed in range(3)]
    assert {model.label for model in plan.models} == {"net-{seed}"}


def test_numpys_numbers_and_odd_annotations_are_taken(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    assert harness.scorer("knn", k=np.int64(5))
    plugin = tmp_path / "odd.py"
    plugin.write_text(
        "import harness\n"
        "def build(k: [int] = 1): pass\n"
        "@harness.hookimpl\n"
        "def harness_scorers(): yield harness.ScorerSpec('odd', build)\n"
    )
    registry = Registry.load([TOY_PLUGIN, plugin])
    content = toy_suite | {"scorers": [{"name": "odd", "k": 2}]}
    assert plan_suite(content, registry, source="toy.toml").named("scorers")
