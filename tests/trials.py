"""Trials of reliability: a sample of them in `make test`, all of them in `make torture`, which counts them by category.

A module's tests belong to its `pytestmark = pytest.mark.trials(CATEGORY)`. A test counts as one trial, or as many as
it adds to the fixture `trials`.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

_COUNTED = pytest.StashKey["Trials"]()
WHOLE = "OOD_HARNESS_TORTURE" in os.environ


def some(items: Sequence[Any], count: int) -> Sequence[Any]:
    """Return all items in a whole torture, else as many, evenly spread."""
    return items if WHOLE or len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def groups(names: Sequence[str]) -> list[Any]:
    """Return each name alone in a whole torture, else all of them together, as parameters of a test."""
    if WHOLE:
        return [pytest.param([name], id=name) for name in names]
    return [pytest.param(list(names), id="all")]


class Trials:
    """How many trials a test has made that went right."""

    def __init__(self) -> None:
        self.made = 0

    def add(self, count: int = 1) -> None:
        self.made += count


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    counted = Trials()
    request.node.stash[_COUNTED] = counted
    return counted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Note the trials in the report of the test's call: those of a test that fails are one more."""
    report = yield
    if call.when == "call" and (counted := item.stash.get(_COUNTED, None)) is not None:
        report.user_properties.append(("right", counted.made))
        report.user_properties.append(("trials", counted.made + report.failed))
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="write the number of trials by category to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "trials(category): the tests are trials of this category")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (mark := item.get_closest_marker("trials")) is not None:
            item.user_properties.append(("category", mark.args[0]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if (target := config.getoption("--figures")) is not None:
        target.write_text(figures(terminalreporter.stats))


def figures(reports: dict[str, list[Any]]) -> str:
    """Write a table of trials that went right, and every one that did not or was left out, with its reason."""
    right: Counter[str] = Counter()
    made: Counter[str] = Counter()
    others: list[str] = []
    for outcome in ("passed", "failed", "error", "skipped", "xfailed"):
        for report in reports.get(outcome, ()):
            said = dict(report.user_properties)
            if "category" not in said:
                continue
            right[said["category"]] += said.get("right", outcome == "passed")
            made[said["category"]] += said.get("trials", 1)
            if outcome != "passed":
                reason = getattr(report, "wasxfail", "") or str(report.longrepr).strip().splitlines()[-1]
                others.append(f"{outcome}: {report.nodeid}: {reason}")
    lines = [
        "make torture",
        "",
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    ]
    lines[-1] += f", torch {torch.__version__}"
    lines += ["", f"{'category':<12}{'trials':>8}{'right':>8}"]
    lines += [f"{category:<12}{made[category]:>8}{right[category]:>8}" for category in sorted(made)]
    return "\n".join([*lines, "", *(sorted(others) or ["No exceptions."])]) + "\n"
