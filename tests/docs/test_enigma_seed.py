"""The commands of the Entropy Enigma's document, on a small network of 1,000 classes and folders of small images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.evaluations.estimation import choice

NETWORK = '''
import numpy as np
import torch
from torch import nn

import harness


def patterns():
    """One image of 8x8 for each class, (1000, 8, 8)."""
    return np.random.default_rng(0).integers(40, 216, size=(1000, 8, 8))


class Network(nn.Module):
    """A random projection, BatchNorm, and a head of the classes' patterns."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)
        self.inner, self.norm, self.fc = nn.Linear(64, 96, bias=False), nn.BatchNorm2d(96), nn.Linear(96, 1000)
        self.inner.weight.data = torch.from_numpy(rng.standard_normal((96, 64))).float()
        pixels = torch.from_numpy(patterns()).float()[:, None] / 255
        self.norm.train()
        with torch.no_grad():
            for _ in range(100):
                self.norm(self.projected(pixels))
            self.norm.eval()
            found = self.forward_head(self.forward_features(pixels), pre_logits=True)
            centred = found - found.mean(dim=0)
            self.fc.weight.copy_(0.5 * centred)
            self.fc.bias.copy_(-0.25 * centred.square().sum(dim=1))

    def projected(self, images):
        return self.inner(images.flatten(1))[:, :, None, None]

    def forward_features(self, images):
        return self.norm(self.projected(images)).relu()

    def forward_head(self, features, pre_logits=False):
        pooled = features.flatten(1)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))

    def get_classifier(self):
        return self.fc


def build(request):
    return harness.Model(Network().eval(), harness.Preprocessing(input_size=(1, 8, 8)), 1000)


@harness.hookimpl
def harness_models():
    yield harness.ModelSpec("thousand", build)
'''


SECTION = (Path(__file__).parents[2] / "docs" / "seeds.md").read_text().partition("## The Entropy Enigma")[2]
PUBLISHED = "first predictions under batch statistics, published curve of ImageNet models"
ESTIMATE = "ood-harness estimate --data photos"
CALIBRATED = f"{ESTIMATE} --valdata validation"
THREE = (
    f"{ESTIMATE} --estimator flips_published --estimator flips:published=linear,weighted=false "
    "--estimator flips:published=quadratic,weighted=false"
)


@pytest.fixture
def thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the network as the default model, 200 noisy photos without labels, and a labelled image of each class."""
    (tmp_path / "thousand.py").write_text(NETWORK)
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    rng = np.random.default_rng(2)
    for number, image in enumerate(scope["patterns"]()):
        noisy = np.clip(image + rng.normal(0, 60, size=(2, 8, 8)), 0, 255).astype(np.uint8)
        save(noisy[0], tmp_path / "validation" / f"class{number:04}" / "0.png")
        if number % 5 == 0:
            save(noisy[1], tmp_path / "photos" / f"{number:04}.png")
    monkeypatch.setattr(choice, "default_model", lambda registry: "thousand")


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def estimated(command: str) -> dict[str, dict[str, Any]]:
    """Run a command of the document, and return its rows by estimator."""
    words = [*command.split()[1:], "--plugin", "thousand.py", "--device", "cpu", "--format", "json"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    return {row["estimator"]: row for row in json.loads(shown.stdout)["rows"]}


@pytest.mark.usefixtures("thousand")
def test_one_argument_gives_the_published_estimate_and_valdata_adds_the_scaled_one() -> None:
    rows = estimated(ESTIMATE)
    alone = rows["flips_published"]
    assert 0.03 < alone["lo"] <= alone["accuracy"] <= alone["hi"] < 0.757
    assert alone["accuracy"] < 0.75
    assert (alone["seen"], alone["definition"]) == ("nothing", PUBLISHED)
    assert "flips_published_scaled" not in rows
    assert "--calibration" in rows["flips"]["error"]
    calibrated = estimated(CALIBRATED)
    assert calibrated["flips_published"] == alone
    scaled = calibrated["flips_published_scaled"]
    assert (scaled["seen"], scaled["definition"]) == ("clean ID", PUBLISHED)
    assert scaled["accuracy"] != alone["accuracy"]
    assert calibrated["flips"]["definition"] == "first predictions of the model as it is"
    assert 0 <= calibrated["flips"]["accuracy"] <= 1


@pytest.mark.usefixtures("thousand")
def test_the_original_s_three_numbers_are_three_curves_of_the_same_flips() -> None:
    rows = estimated(THREE)
    linear, quadratic, weighted = (100 * rows[name]["accuracy"] for name in sorted(rows))
    flips = (83.55158891 - linear) / 0.10318227  # of 1,000 images
    assert flips > 10
    assert quadratic == pytest.approx(82.5756446 - 0.0959406999 * flips - 1.01165493e-5 * flips**2)
    count = np.roots([3.55553868e-4, -0.321445023, 75.6618580 - weighted]).min()
    assert 0 < count < 500.5
    assert {row["definition"] for row in rows.values()} == {PUBLISHED}


def test_the_document_gives_these_commands() -> None:
    rows = [line for line in SECTION.splitlines() if Path(__file__).name in line]
    assert {command for command in (ESTIMATE, CALIBRATED, THREE) if f"`{command}`" in "".join(rows)} == {
        ESTIMATE, CALIBRATED, THREE,
    }  # fmt: skip
