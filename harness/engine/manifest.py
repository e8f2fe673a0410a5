"""Describes the machine, the libraries and the suite of a run for its manifest."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError
from harness.reports.record import title_of_model
from harness.reports.records import read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def known(plan: Plan, folder: Path) -> dict[str, Any]:
    """Return what run.json says of models and of what does not apply, which a narrowed plan adds to; else nothing."""
    content = read_manifest(folder) if plan.part else {}
    return {"models": content.get("models", {}), "not_applicable": content.get("not_applicable", [])}


def left_out(plan: Plan, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the entries of what does not apply on which a narrowed plan does not decide anew."""
    return [entry for entry in entries if _is_left_out(plan, entry)]


def _is_left_out(plan: Plan, entry: Mapping[str, Any]) -> bool:
    """Return whether an entry is of a model, or of a worker of a narrowed key, that the plan does not have."""
    if title_of_model(entry.get("model", ""), entry.get("seed", 0)) not in {m.title for m in plan.models}:
        return True
    named = ((kept, entry.get(key.removesuffix("s"))) for key, kept in plan.part.items() if key != "models")
    return any(label is not None and label not in kept for kept, label in named)


def require_same_model(plan: Plan, before: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> None:
    """Raise InputError if a plan of some workers alone meets another model than that of the folder's other numbers.

    Else one board would rank scores of two networks together.
    """
    if before is None or not plan.part.keys() - {"models"}:
        return
    if any(before.get(key) != json.loads(json.dumps(facts[key])) for key in ("digest", "preprocessing")):
        raise InputError(
            "it has changed since the folder's other numbers were measured. Run the whole suite, or name another "
            "folder with --out"
        )


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
