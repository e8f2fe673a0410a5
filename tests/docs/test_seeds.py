"""Each line of docs/seeds.md names what is there, and what can run here is run."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness import cli
from harness.contract.registry import Registry
from harness.engine.suite import Suite
from harness.evaluations.run import prepare
from harness_plugins import losses
from harness_plugins.probes import classic, diffusion, dse_dsmi, er

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "seeds.md").read_text()
SEEDS, _, UNVERIFIED = TEXT.partition("## Not verified here")
ROWS = [line.strip("| ").split(" | ") for line in SEEDS.splitlines() if re.match(r"\| (?!in its |-)", line)]
SPANS = [span for row in ROWS for span in re.findall(r"`([^`]+)`", row[1])]
COMMANDS = [span for span in SPANS if span.startswith("ood-harness ")]
ER = ("vmf_entropy", "discrete_entropy", "vmf_reconstruction", "discrete_reconstruction")
MODULES = ("harness", "losses", "dse_dsmi", "diffusion", "classic")
EXPRESSIONS = [span for span in SPANS if re.match(rf"({'|'.join(MODULES)})\.|({'|'.join(ER)})\(", span)]


def call(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    return int(ended.value.code or 0)


def suite_of(command: str) -> str | None:
    found = re.match(r"ood-harness run (\S+)|.*--suite (\S+)", command)
    return next(filter(None, found.groups())) if found else None


def test_every_row_has_a_name_here_and_a_test_that_exists() -> None:
    assert len(ROWS) > 20
    for theirs, ours, tested in ROWS:
        assert theirs
        assert ours
        tests = re.findall(r"`(tests/\S+\.py)::(\w+)`", tested)
        assert tests, theirs
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text(), (file, name)


def test_every_link_leads_somewhere() -> None:
    for page, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", TEXT)):
        text = (ROOT / "docs" / page).read_text() if page else TEXT
        headings = {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        }
        assert not anchor or anchor in headings, (page, anchor)


@pytest.mark.parametrize("expression", dict.fromkeys(EXPRESSIONS))
def test_every_expression_runs(expression: str) -> None:
    generator = torch.Generator().manual_seed(0)
    names: dict[str, Any] = {
        "harness": harness,
        "losses": losses,
        "dse_dsmi": dse_dsmi,
        "diffusion": diffusion,
        "classic": classic,
        "z": torch.randn(12, 4, generator=generator),
        "labels": torch.arange(12) % 3,
        "num_features": 8,
        "num_classes": 3,
        "logits": torch.randn(5, 3, generator=generator),
        "targets": torch.tensor([0, 1, 2, 0, 1]),
        "units": torch.eye(3),
        "probabilities": torch.eye(3),
        "others": torch.eye(3).flip(0),
        **{name: getattr(er, name) for name in ER},
        "id_scores": np.arange(4.0),
        "ood_scores": np.arange(4.0) + 0.5,
    }
    assert eval(expression, names) is not None


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_every_command_and_what_it_names_is_there(
    command: str, catalogue: Registry, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    assert call(f"ood-harness {words[1]} --help", monkeypatch) == 0
    shown = capfd.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in shown, option
    if suite := suite_of(command):
        assert isinstance(prepare(suite).suite, Suite)
    for recipe in re.findall(r"(?:--recipe|ood-harness train) (\S+)", command):
        assert recipe in catalogue.names("recipe")


def test_the_first_experiment_of_gen_and_its_pictures(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The suite with one of its models on 200 images of each part, then each of the notebook's pictures of it."""
    if not (Path(os.environ.get("OOD_HARNESS_DATA") or "absent") / "mnist").is_dir():
        pytest.skip("no real data: mnist is missing. Set OOD_HARNESS_DATA to a folder that holds it")
    Path("one.toml").write_text(
        'schema = 1\nname = "mnist-split"\nbase = "mnist-split"\nscorers = ["gen", "energy"]\n'
        'models = [{ recipe = "mnist-toy-10" }]\n'
    )
    assert call("ood-harness run one.toml --limit 200 --out results/mnist-split", monkeypatch) == 0
    board = capfd.readouterr().out
    assert "gen" in board
    drawn = [
        command for command in COMMANDS if re.match(r"ood-harness plot \w+ results/mnist-split ", command)
    ]
    assert len(drawn) == 3
    for command in drawn:
        assert call(command, monkeypatch) == 0
    for name in ("hist", "roc", "features"):
        assert Path(f"{name}.png").stat().st_size > 5_000


def test_what_is_not_verified_is_listed_in_one_place(catalogue: Registry) -> None:
    listed = {name for name in catalogue.names("suite") if f"`{name}`" in UNVERIFIED}
    assert listed == {name for name in catalogue.names("suite") if not prepare(name).suite.verified}
    for what in ("CIFAR", "SVHN", "ImageNet", "hub", "GPU"):
        assert what in UNVERIFIED
