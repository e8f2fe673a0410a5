"""What the README shows works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from harness.base.errors import DatasetError
from harness.contract.registry import Registry
from harness.data.opening import open_id
from harness.engine.plan import make_plan
from harness.engine.runner import RunOptions, run_plan
from harness.engine.suite import load_suite
from harness.reports.records import read_records

README = Path(__file__).parents[1] / "README.md"


def block(language: str, containing: str) -> str:
    """Return the one code block of a language that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


@pytest.fixture
def own_world(tmp_path: Path) -> None:
    """The folders that the README's suite names: photos/, holiday/ and my-model/."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for level, name in enumerate(("cat", "dog")):
            write_images(tmp_path / "photos" / split / name, rng.integers(0, 60, (6, 20, 20, 3)) + 90 * level)
    write_images(tmp_path / "holiday", rng.integers(0, 256, (6, 30, 20, 3)))
    (tmp_path / "my-model").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", pretrained=False, num_classes=2)
    save_file(model.state_dict(), tmp_path / "my-model/model.safetensors")
    (tmp_path / "my-model/config.json").write_text('{"architecture": "test_resnet", "num_classes": 2}')


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.png")


@pytest.mark.usefixtures("own_world")
def test_the_five_lines_of_toml_run(tmp_path: Path) -> None:
    text = block("toml", "my-model")
    assert len(text.strip().splitlines()) == 5
    (tmp_path / "mine.toml").write_text(text)
    registry = Registry.load()
    plan = make_plan(load_suite("mine.toml", registry), registry)
    result = run_plan(plan, registry, RunOptions(out=tmp_path / "out", device="cpu"))

    records = [r for r in read_records(tmp_path / "out") if r["kind"] == "score"]
    measured = {r["scorer"] for r in records if r["error"] is None}
    failed = {r["scorer"]: r["error"] for r in records if r["error"]}
    assert {"msp", "gen", "energy", "mahalanobis_pp", "dse"} <= measured
    assert set(failed) == {
        "knn",
        "vim",
        "flips",
    }  # 12 training images and 12 to adapt to are too few, and each says so
    assert "12" in failed["knn"]
    assert "no prediction changed" in failed["flips"]
    assert result.cells == len(Registry.load().names("scorer"))


def test_the_board_is_that_of_the_digits_suite() -> None:
    board = block("text", "digits: group means")
    for scorer in Registry.load().names("scorer"):
        assert scorer in board
    for name in ("digits-5-9", "letters", "patches-china", "patches-flower", "uniform", "gaussian"):
        assert name in board


@pytest.mark.usefixtures("own_world")
def test_folders_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "photos/train/bird", np.zeros((2, 20, 20, 3)))
    (tmp_path / "mine.toml").write_text(block("toml", "my-model"))
    registry = Registry.load()
    with pytest.raises(DatasetError, match="cat, dog in test and bird, cat, dog in train"):
        open_id(load_suite("mine.toml", registry).id, registry)
