"""What the tests share: a toy plugin, suites over it, and folders of their own for every run."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.plan import make_plan
from harness.registry import Registry
from harness.runner import RunOptions, RunResult, run_plan
from harness.suite import parse_suite

TESTS = Path(__file__).parent
TOY_PLUGIN = TESTS / "toy_plugin.py"
TOY_SUITE: dict[str, Any] = {
    "schema": 1,
    "name": "toy",
    "batch_size": 16,
    "scorers": ["level", "margin", "from_train"],
    "id": {
        "dataset": "levels",
        "train": {"split": "train"},
        "validation": {"split": "validation"},
        "test": {"split": "test"},
    },
    "models": [{"name": "network"}],
    "ood": [
        {"name": "bright", "dataset": "levels", "group": "far", "params": {"offset": 100}},
        {"name": "close", "dataset": "levels", "group": "near", "params": {"offset": 15, "seed": 5}},
        {"name": "closer", "dataset": "levels", "group": "near", "params": {"offset": 8, "seed": 6}},
    ],
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, or another test's results."""
    monkeypatch.setenv("OOD_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OOD_HARNESS_BLOCK", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toy_suite() -> dict[str, Any]:
    return copy.deepcopy(TOY_SUITE)


@pytest.fixture
def toys() -> Any:
    """The toy plugin's module, as the registry loaded it, with its counters at zero."""
    Registry.load([TOY_PLUGIN], blocked=())
    module = sys.modules["ood_harness_file_toy_plugin"]
    for counter in (module.DECODED, module.FORWARDED, module.FITTED):
        counter.clear()
    return module


def run_suite(
    content: dict[str, Any], out: Path, *, plugins: tuple[Path, ...] = (TOY_PLUGIN,), cache: Path | None = None
) -> RunResult:
    """Run a suite given as a dictionary, with the toy plugin installed."""
    registry = Registry.load(plugins)
    plan = make_plan(parse_suite(content, source="toy.toml"), registry)
    return run_plan(plan, registry, RunOptions(out=out, cache=cache, device="cpu"))
