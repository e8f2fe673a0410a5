"""A suite or recipe with a base gives only the keys that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.contract.bases import read_based
from harness.contract.registry import Registry
from harness.engine.suite import load_id
from harness.evaluations.run import prepare


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_keys_come_from_the_nearest_file_and_a_table_or_list_replaces_the_whole(catalogue: Registry) -> None:
    write("first.toml", "a = 1\nb = 1\nc = 1\nlist = [1, 2]\n[table]\nx = 1\ny = 1\n")
    write("second.toml", 'base = "first.toml"\nb = 2\nc = 2\nlist = [3]\n')
    path = write("third.toml", 'base = "second.toml"\nc = 3\n[table]\nx = 3\n')
    expected = {"a": 1, "b": 2, "c": 3, "list": [3], "table": {"x": 3}}
    assert read_based(path, "suite", catalogue) == expected


def test_a_base_is_looked_for_beside_its_file(catalogue: Registry) -> None:
    write("folder/inner/first.toml", "a = 1\n")
    write("folder/second.toml", 'base = "inner/first.toml"\nb = 2\n')
    path = write("third.toml", 'base = "folder/second.toml"\n')
    assert read_based(path, "suite", catalogue) == {"a": 1, "b": 2}


def test_a_suite_may_be_based_on_an_installed_one(catalogue: Registry) -> None:
    write("mine.toml", 'schema = 1\nname = "mine"\nbase = "digits"\nscorers = ["msp"]\n')
    plan, whole = prepare("mine.toml"), prepare("digits")
    assert plan.suite.name == "mine"
    assert plan.suite.ood == whole.suite.ood
    assert plan.suite.models == whole.suite.models
    assert load_id("mine.toml", catalogue) == whole.suite.id


@pytest.mark.parametrize("kind", ["suite", "recipe"])
def test_a_circle_and_a_missing_base_are_one_line(kind: str, catalogue: Registry) -> None:
    path = write("one.toml", 'base = "two.toml"\n')
    write("two.toml", 'base = "one.toml"\n')
    circle = rf"the {kind} one.toml is based on itself: one.toml → two.toml → one.toml"
    with pytest.raises(harness.InputError, match=circle):
        read_based(path, kind, catalogue)
    path = write("three.toml", 'base = "digts"\n')
    with pytest.raises(harness.HarnessError, match=f"no {kind} named 'digts'") as caught:
        read_based(path, kind, catalogue)
    assert "\n" not in str(caught.value)
