"""What the tests share: folders of their own, and the toy plugin."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from disturbed import SUITES, Subject, run_alone
from every_kind import every_kind
from toys import TOY_PLUGIN, TOY_SUITE, run_suite, toy_module
from training_data import bright_and_dark, digits_0_to_4

import harness
from harness import Selection
from harness.contract.registry import Registry

pytest_plugins = ("trials",)


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
    module = toy_module()
    for counter in (module.DECODED, module.FORWARDED, module.FITTED):
        counter.clear()
    module.OPENED.clear()
    return module


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of every kind of evaluation, with failures and methods that do not apply; to read only."""
    folder = tmp_path_factory.mktemp("everything")
    return run_suite(every_kind(), folder / "out", cache=folder / "cache").folder


@pytest.fixture(scope="session")
def catalogue() -> Registry:
    """What is installed."""
    return Registry.load(blocked=())


@pytest.fixture(scope="session")
def digits() -> tuple[Selection, Selection, Selection]:
    """scikit-learn's digits 0-4: train, validation and test."""
    return digits_0_to_4()


@pytest.fixture(scope="session")
def tiny() -> harness.TrainingData:
    """Two classes that brightness tells apart, 48 images of 8x8."""
    return bright_and_dark()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    """Runs that nothing disturbs, by suite; to read only."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {name: run_alone(folder / name, made(folder)) for name, made in SUITES.items()}
