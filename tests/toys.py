"""A toy suite over the toy plugin, and how to run it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import DatasetError
from harness.contract.registry import Registry
from harness.data.streams import Stream
from harness.engine.runner import RunOptions, RunResult
from harness.engine.workbench import Workbench
from harness.evaluations.run import plan_suite, run_plan
from harness.models.decoded import Decoder

TESTS = Path(__file__).parent
TOY_PLUGIN = TESTS / "toy_plugin.py"
TOY_SUITE: dict[str, Any] = {
    "schema": 1,
    "name": "toy",
    "batch_size": 16,
    "limits": {"isolate": "none"},  # the toys count what is done to them in this process
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


def toy_module() -> Any:
    """The toy plugin's module, as the registry loaded it last."""
    loaded = [
        module
        for module in list(sys.modules.values())
        if getattr(module, "__file__", None) == str(TOY_PLUGIN)
    ]
    return loaded[-1]


def run_suite(
    content: dict[str, Any],
    out: Path,
    *,
    plugins: tuple[Path, ...] = (TOY_PLUGIN,),
    cache: Path | None = None,
    progress: bool = False,
) -> RunResult:
    """Run a suite given as a dictionary, with the toy plugin installed."""
    registry = Registry.load(plugins)
    plan = plan_suite(content, registry, source="toy.toml")
    return run_plan(plan, RunOptions(out=out, cache=cache, device="cpu", progress=progress))


def as_toml(suite: dict[str, Any]) -> str:
    """Write a suite's dictionary as TOML; JSON's scalars, lists and inline tables of strings are nearly TOML's."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in item.items()) + " }"
        if isinstance(item, list):
            return "[" + ", ".join(map(value, item)) + "]"
        return json.dumps(item)

    return "\n".join(f"{key} = {value(item)}" for key, item in suite.items())


def lose_images_of(name: str, patched: pytest.MonkeyPatch) -> None:
    """Let every reading of a set's images fail, as if its disk were away after it was opened."""

    def losing(original: Any) -> Any:
        def read(self: Any, *arguments: Any, **keywords: Any) -> Any:
            stream = next(a for a in arguments if isinstance(a, Stream))
            if any(part.name == name for part in stream.parts):
                raise DatasetError("the drive has died")
            return original(self, *arguments, **keywords)

        return read

    patched.setattr(Workbench, "extract", losing(Workbench.extract))
    patched.setattr(Decoder, "batches", losing(Decoder.batches))
