"""Shared fixtures. This folder must stay without __init__.py, or it would hide the `datasets` library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def library_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets-cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST and Fashion-MNIST."""
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    root = Path(os.environ.get("OOD_HARNESS_DATA", beside))
    if not (root / "mnist").is_dir():
        pytest.skip(f"no real data: {root}/mnist is missing. Set OOD_HARNESS_DATA to a folder that holds it")
    return root


@pytest.fixture
def picture() -> Callable[[Path, int], Path]:
    """Write a small image file of one colour."""

    def write(path: Path, value: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6, 3), value, dtype=np.uint8)).save(path)
        return path

    return write
