"""The first hour of a new user: an own classifier and own folders give a right board, in few commands and lines."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from harness import cli

CLASSES = ("amber", "beryl", "coral")
MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.25, 0.2)
MOST_LINES, MOST_COMMANDS = 5, 3


def draw(folder: Path, classes: tuple[str, ...], count: int, seed: int) -> None:
    """Write pictures of several sizes: each class has a colour, in much noise."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(24, 48, 2)
            pixels = rng.normal(110, 60, (height, width, 3))
            pixels[..., number % 3] += rng.normal(25, 25)
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            image.save(folder / name / f"{index}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw(tmp_path / "photos" / "train", CLASSES, 8, seed=0)
    draw(tmp_path / "photos" / "test", CLASSES, 20, seed=1)
    draw(tmp_path / "other", ("x",), 20, seed=2)
    return tmp_path / "photos"


def read(path: Path, side: int, resized: int) -> torch.Tensor:
    """Read one picture as the user's own script does: the short side resized, the middle cut out, normalised."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    short = min(width, height)
    size = (resized * width // short, resized * height // short)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    image = image.crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def plain_loop(network: Any, folder: Path, *, side: int, resized: int) -> list[bool]:
    """Classify every picture by the user's own loop; return which are right."""
    network.eval()
    right = []
    for label, name in enumerate(CLASSES):
        for path in sorted((folder / name).iterdir()):
            with torch.no_grad():
                logits = network(read(path, side, resized)[None])
            right.append(int(logits.argmax()) == label)
    return right


def fit(network: Any, folder: Path, *, side: int, resized: int) -> None:
    """Train the network a little, as the user did before the first hour."""
    paths = [
        (path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).iterdir())
    ]
    images = torch.stack([read(path, side, resized) for path, _ in paths])
    labels = torch.tensor([label for _, label in paths])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    network.train()
    for _ in range(6):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ood-harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


def suite(path: Path, model: str) -> Path:
    """Write the user's suite."""
    path.write_text(
        textwrap.dedent(f"""\
        schema = 1
        name = "mine"
        id = {{ dataset = "hf:photos", test = {{ split = "test" }} }}
        ood = [{{ name = "other", dataset = "hf:other", group = "far" }}]
        models = [{model}]
        """)
    )
    assert len(path.read_text().splitlines()) <= MOST_LINES
    return path


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def failed(folder: Path) -> set[str]:
    return {line["scorer"] for line in records(folder) if line["error"]}


def accuracy_on_id(folder: Path) -> float:
    lines = records(folder)
    found = [
        line["metrics"]["accuracy"]["value"]
        for line in lines
        if line["kind"] == "model" and line["group"] == "id"
    ]
    assert len(found) == 1
    return float(found[0])


def test_a_file_of_weights_and_folders_give_a_right_board(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network: Any = timm.create_model("test_resnet", num_classes=3)
    fit(network, photos / "train", side=28, resized=32)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, "best.pth")
    stated = ["--mean", *MEAN, "--std", *STD, "--interpolation", "bilinear", "--crop-pct", 28 / 32]
    commands = [
        ["import", "best.pth", "--arch", "test_resnet", "--size", 28, *stated, "-o", "net"],
        ["run", suite(tmp_path / "mine.toml", '{ checkpoint = "net" }')],
    ]
    assert len(commands) <= MOST_COMMANDS
    statuses = [call(*command, monkeypatch=monkeypatch) for command in commands]
    assert statuses == [0, 0]
    assert failed(Path("results/mine")) == set()
    right = plain_loop(network, photos / "test", side=28, resized=32)
    assert len(right) == 60
    assert 20 < sum(right) < 60  # neither chance nor all, so that equality says something
    assert accuracy_on_id(Path("results/mine")) == pytest.approx(sum(right) / 60, abs=1e-9)
    stated_by = json.loads(Path("results/mine/run.json").read_text())["models"]["net (seed 0)"][
        "preprocessing"
    ]
    assert stated_by["source"] == "config.json"
    assert "energy" in capfd.readouterr().out


CODE = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Linear(32, 3)

    def forward(self, images):
        return self.fc(self.body(images))

def build():
    net = Small()
    net.load_state_dict(torch.load("small.pth", weights_only=True))
    return net
"""


def test_a_plain_torch_module_and_folders_give_a_right_board(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_models.py").write_text(CODE)
    scope: dict[str, Any] = {}
    exec(compile(CODE, "my_models.py", "exec"), scope)
    torch.manual_seed(1)
    network = scope["Small"]()
    fit(network, photos / "train", side=24, resized=24)
    torch.save(network.state_dict(), "small.pth")
    seen = (
        f'{{ size = 24, mean = {list(MEAN)}, std = {list(STD)}, interpolation = "bilinear", crop_pct = 1.0 }}'
    )
    mine = suite(tmp_path / "mine.toml", f'{{ module = "my_models.py:build", preprocessing = {seen} }}')
    assert call("run", mine, monkeypatch=monkeypatch) == 0, capfd.readouterr().err
    right = plain_loop(network, photos / "test", side=24, resized=24)
    assert 20 < sum(right) < 60
    assert accuracy_on_id(Path("results/mine")) == pytest.approx(sum(right) / 60, abs=1e-9)
    facts = json.loads(Path("results/mine/run.json").read_text())["models"]
    assert {"logits", "penultimate", "linear"} <= set(next(iter(facts.values()))["offers"])


def test_a_layer_can_be_named_in_the_suite_and_a_misspelt_key_is_found(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "my_models.py").write_text(
        CODE.replace("    net.load_state_dict", "    # net.load_state_dict")
    )
    seen = "preprocessing = { size = 24, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }"
    mine = suite(tmp_path / "mine.toml", f'{{ module = "my_models.py:build", head = "fc", {seen} }}')
    assert call("run", mine, "--limit", 6, monkeypatch=monkeypatch) == 0, capfd.readouterr().err
    assert "nothing states interpolation, crop_pct of its preprocessing" in caplog.text
    capfd.readouterr()
    for wrong, message in (
        (f'{{ module = "my_models.py:build", haed = "fc", {seen} }}', "no key named 'haed'"),
        (
            '{ module = "my_models.py:build", preprocessing = { sise = 24 } }',
            "no key named 'sise'. Did you mean 'size'?",
        ),
        (
            '{ timm = "test_resnet", preprocessing = { mean = [128.0, 128.0, 128.0] } }',
            "on the scale of 0 to 255",
        ),
        ('{ timm = "test_resnet", preprocessing = { crop_mode = "centre" } }', "no crop_mode named 'centre'"),
    ):
        assert call("run", suite(tmp_path / "mine.toml", wrong), monkeypatch=monkeypatch) == 2
        error = capfd.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
