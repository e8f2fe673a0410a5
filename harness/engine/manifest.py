"""Describes the machine, the libraries and the suite of a run for its manifest."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.contract.registry import Registry
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
