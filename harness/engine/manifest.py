"""Describes the machine, the libraries and the suite of a run for its manifest."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.reports.records import read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract.registry import Registry
    from harness.engine.plan import Plan
    from harness.engine.suite import Suite

_LIBRARIES = (
    "ood-harness", "torch", "torchvision", "timm", "numpy", "scipy", "pandas", "scikit-learn", "datasets",
)  # fmt: skip


def describe_run(suite: Suite, device: str, registry: Registry) -> dict[str, Any]:
    """Return the part of run.json that is known before the first cell."""
    return {
        "suite": suite.name,
        "suite_digest": suite.digest,
        "verified": suite.verified,
        "fpr": suite.fpr,
        "definition": suite.model_dump(mode="json", by_alias=True),
        "device": device_name(device),
        "python": platform.python_version(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "plugins": registry.versions,
        "git_commit": git_commit(),
    }


def of_others(plan: Plan, folder: Path) -> dict[str, Any]:
    """Return what run.json says of the models and scorers that a narrowed plan leaves out: nothing for a whole one."""
    known = read_manifest(folder) if plan.part else {}
    mine = {model.title for model in plan.models}
    return {
        "models": {title: facts for title, facts in known.get("models", {}).items() if title not in mine},
        "not_applicable": [entry for entry in known.get("not_applicable", []) if not _is_of(plan, entry)],
    }


def _is_of(plan: Plan, entry: Mapping[str, Any]) -> bool:
    """Return whether a plan decides anew on an entry of what does not apply: whether it has its model and scorer."""
    scorer = entry.get("scorer")
    return any(
        (model.label, model.seed) == (entry.get("model"), entry.get("seed")) for model in plan.models
    ) and (scorer is None or any(scorer == worker.label for worker in plan.named("scorers")))


def device_name(device: str) -> str:
    """Return the device with the name of its model."""
    if not device.startswith("cuda"):
        return f"cpu ({platform.machine()})"
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def git_commit() -> str | None:
    """Return the commit of the harness's checkout; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
