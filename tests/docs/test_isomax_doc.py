"""The lines of docs/isomax.md work as they are shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from journals import read_journal

import harness
from harness_plugins import losses

TEXT = (Path(__file__).parents[2] / "docs" / "isomax.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def ran(*codes: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in codes:
        exec(code, names)
    return names


def test_a_loop_with_the_two_lines_learns_and_its_score_detects() -> None:
    loop, detect, _ = blocks("python")
    names = ran(loop, detect)
    logits, targets = names["logits"], names["targets"]
    assert (logits[targets < 5].argmax(dim=1) == targets[targets < 5]).double().mean() > 0.95
    assert logits.max() <= 0
    id_scores, ood_scores = (
        -logits.max(dim=1)[0][mask].double().numpy() for mask in (targets < 5, targets >= 5)
    )
    wins = (ood_scores[:, None] > id_scores).mean() + (ood_scores[:, None] == id_scores).mean() / 2
    assert names["auroc"] == pytest.approx(wins)
    assert wins > 0.8


def test_the_lines_that_are_replaced_are_the_usual_ones() -> None:
    """With the two lines as comments say, the same loop trains a linear layer by cross-entropy."""
    loop = blocks("python")[0]
    usual = re.sub(r"# (self\.classifier|loss) = (.*)\n.*the (first|second) line\n", r"\1 = \2\n", loop)
    assert usual.count("IsoMaxPlusHead(") == usual.count("isomax_loss(") == 0
    net = ran(usual)["train"]()
    assert isinstance(net.classifier, torch.nn.Linear)


def test_the_lines_of_the_authors_readme_run() -> None:
    names = ran(blocks("python")[0], blocks("python")[2])
    assert isinstance(names["classifier"], losses.IsoMaxPlusHead)
    probabilities = torch.softmax(10 * names["outputs"], dim=1)[torch.arange(8), torch.arange(8) % 5]
    assert names["loss"].item() == pytest.approx(-probabilities.log().mean().item(), abs=1e-6)
    np.testing.assert_array_equal(names["score"].detach(), names["outputs"].detach().max(dim=1).values)


def test_the_trained_module_gets_a_board() -> None:
    (suite,) = blocks("toml")
    Path("net.py").write_text(blocks("python")[0])
    Path("mine.toml").write_text(suite)
    harness.run("mine.toml", out="out", device="cpu")
    scores = [r for r in read_journal(Path("out")) if r["kind"] == "score"]
    by_name = {r["scorer"]: r for r in scores}
    assert {"min_distance", "entropic", "knn", "gen"} <= {n for n, r in by_name.items() if r["error"] is None}
    assert by_name["min_distance"]["metrics"]["auroc"]["value"] > 0.8
