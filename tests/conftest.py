"""What the tests share: folders of their own, and the toy plugin."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from toys import TOY_PLUGIN, TOY_SUITE, toy_module

from harness.registry import Registry


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
    return module
