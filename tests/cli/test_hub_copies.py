"""The hub's copies of models and datasets are counted and pruned if they are asked for, and left alone if not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A home of the hub's libraries, as they leave it: a model of 1,000 bytes, and a dataset that was prepared."""
    repository = tmp_path / "home/hub/models--timm--tiny"
    commit = "a" * 40
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "blobs/b1").write_bytes(bytes(1000))
    (repository / f"snapshots/{commit}/model.safetensors").symlink_to("../../blobs/b1")
    (repository / "refs/main").write_text(commit)
    prepared = tmp_path / "home/datasets/mnist/0.0.0"
    prepared.mkdir(parents=True)
    (prepared / "mnist-train.arrow").write_bytes(bytes(500))
    (tmp_path / "home/datasets/downloads").mkdir()
    return tmp_path / "home"


def cache(hub: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ran = subprocess.run(
        [sys.executable, "-m", "harness.cli", "cache", *arguments],
        env=environment | {"HF_HOME": str(hub)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def test_the_hubs_copies_are_counted_and_pruned_if_they_are_asked_for(hub: Path) -> None:
    assert "0 entries, 0 B" in cache(hub)
    assert "hub: 2 entries, 1.5 kB" in cache(hub, "--hub")
    assert "removed 0 entries" in cache(hub, "--prune", "--days", "0")
    assert "removed 0 entries" in cache(hub, "--prune", "--hub", "--days", "1")
    assert "removed 2 entries, 1.5 kB" in cache(hub, "--prune", "--hub", "--limit", "0 B")
    assert not list(hub.rglob("*.arrow")) and not list(hub.rglob("model*"))
    assert "0 entries, 0 B" in cache(hub, "--hub")


def test_a_machine_without_the_hub_has_no_copies(tmp_path: Path) -> None:
    assert "0 entries, 0 B" in cache(tmp_path / "nothing", "--hub")
