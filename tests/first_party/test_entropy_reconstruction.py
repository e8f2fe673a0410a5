"""The functions of the ER authors' code: their values, their signatures, their printed check, and bad arguments."""

from __future__ import annotations

import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness_plugins.entropy_reconstruction import entropy, reconstruction

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "er.json").read_text())

# What the README of the authors' code says that its script prints; the run behind it has no seed.
README = """\
Continuous entropy
Entropy sphere plug-in estimator: -249.30848693847656
Entropy sphere Joe's estimator: -249.30833435058594
Discrete entropy
Max entropy 6.907755278982137
Entropy on uniform sample: 6.907612323760986
Entropy on uniform sample (high temp): 6.695544242858887
Entropy on one_hot vector: -1.1920928244535389e-07
Continuous reconstruction
Reconstruction error: -248.65525817871094
Discrete reconstruction
Reconstruction error: 6.100684642791748
"""
# Four standard deviations between seeds (tests/first_party/probes/test_er.py), and float32's rounding of a sum.
SPREAD = (2.2e-4, 1e-4, 0.0, 8.5e-6, 0.04, 1e-12, 0.038, 0.012)


def made(expression: str, case: dict[str, Any]) -> torch.Tensor:
    """Build the input as the golden file says."""
    names = {"i": np.arange(case["n"])[:, None], "j": np.arange(case["d"])[None, :], "np": np}
    rows = eval(expression, names) + 0.0 * names["i"] + 0.0 * names["j"]
    if case["post"] == "l2":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    else:
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows = rows / rows.sum(axis=1, keepdims=True)
    return torch.tensor(rows, dtype=getattr(torch, case["dtype"]))


def tolerance(case: dict[str, Any]) -> float:
    return 1e-9 if case["dtype"] == "float64" else 2e-6


@pytest.mark.parametrize("case", GOLDEN["entropy"])
def test_entropies_are_those_of_the_authors_code(case: dict[str, Any]) -> None:
    z = made(case["input"], case)
    found = entropy(z, case["kappa"], case["support"], case["reduction"], published_floor=True)
    assert found.item() == pytest.approx(case["out"], abs=tolerance(case))


@pytest.mark.parametrize("case", GOLDEN["reconstruction"])
def test_reconstructions_are_those_of_the_authors_code(case: dict[str, Any]) -> None:
    views = made(case["input1"], case), made(case["input2"], case)
    found = reconstruction(*views, case["kappa"], case["support"], published_floor=True)
    assert found.item() == pytest.approx(case["out"], abs=tolerance(case))


@pytest.mark.parametrize("case", [case for case in GOLDEN["entropy"] if case.get("out_with_exact_logI")])
def test_without_the_floor_they_are_exact(case: dict[str, Any]) -> None:
    found = entropy(made(case["input"], case), case["kappa"], reduction=case["reduction"])
    assert found.item() == pytest.approx(case["out_with_exact_logI"], abs=tolerance(case))


def test_signatures_and_defaults_are_the_authors() -> None:
    shared = {"kappa": 10, "support": "sphere"}
    for function, expected in (
        (entropy, {"embeddings": inspect.Parameter.empty, **shared, "reduction": "expectation"}),
        (
            reconstruction,
            {"projection1": inspect.Parameter.empty, "projection2": inspect.Parameter.empty, **shared},
        ),
    ):
        given = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        assert {p.name: p.default for p in given} == expected


def test_both_have_gradients() -> None:
    z = torch.eye(3, dtype=torch.float64).requires_grad_()
    (reconstruction(z, z.flip(0)) - entropy(z)).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0


@pytest.fixture(scope="module")
def printed() -> list[str]:
    command = [sys.executable, "-W", "error", "-m", "harness_plugins.probes.er"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def split(line: str) -> tuple[str, list[float]]:
    """Split a printed line into its words and its numbers."""
    number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    return re.sub(rf"\s*{number}", "", line).strip(), [float(found) for found in re.findall(number, line)]


def test_the_printed_lines_are_those_of_the_readme_with_the_exact_values_beside(printed: list[str]) -> None:
    theirs = README.splitlines()
    spread = iter(SPREAD)
    for line, expected in zip(printed, theirs, strict=False):
        (words, found), (label, numbers) = split(line), split(expected)
        if not numbers:
            assert line == expected
            continue
        assert re.sub(r"\s*exact:$", "", words) == label
        published, exact = found
        assert published == pytest.approx(numbers[0], rel=0, abs=next(spread))
        assert exact != published or label == "Max entropy"
    assert next(spread, None) is None  # every value was compared


def test_the_printed_values_of_seed_0_are_the_authors(printed: list[str]) -> None:
    found = [split(line)[1] for line in printed[: len(README.splitlines())]]
    published = [numbers[0] for numbers in found if numbers]
    published.pop(2)  # the maximum, which has no seed
    for ours, theirs in zip(published, GOLDEN["main_seeded"]["0"], strict=True):
        assert ours == pytest.approx(theirs, rel=0, abs=1e-4 if theirs < -1 else 1e-6)


def test_the_check_says_which_values_are_right(printed: list[str]) -> None:
    verdict = " ".join(printed[len(README.splitlines()) :])
    assert "The exact values are right" in verdict
    # ln of the area of the unit sphere in 1000 dimensions, 2 π^500 / Γ(500) = 2 π^500 / 499!
    area = math.log(2) + 500 * math.log(math.pi) - sum(math.log(k) for k in range(1, 500))
    assert f"{area:.2f} nats" in verdict
    exact = split(printed[1])[1][1]
    assert exact < area < -249.3
    assert f"{exact:.2f} is possible" in verdict


UNIT = torch.eye(3)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (entropy, {"support": "shpere"}, "no support named 'shpere'. Did you mean 'sphere'?"),
        (entropy, {"reduction": "mean"}, "no reduction named 'mean'. Valid: average, expectation"),
        (entropy, {"support": "discrete", "reduction": "sum"}, "no reduction named 'sum'"),
        (entropy, {"kappa": 0}, "kappa is 0. Give a number above 0"),
        (entropy, {"kappa": "10"}, "kappa is '10'. Give a number above 0"),
        (entropy, {"kappa": math.nan}, "kappa is nan. Give a number above 0"),
        (entropy, {"embeddings": 2 * UNIT}, "vector 0 has length 2, not 1"),
        (entropy, {"embeddings": np.eye(3)}, "embeddings is a ndarray. Give a torch.Tensor"),
        (entropy, {"embeddings": -UNIT, "support": "discrete"}, "probabilities go down to -1"),
        (reconstruction, {"support": "torus"}, "no support named 'torus'. Valid: discrete, sphere"),
        (reconstruction, {"kappa": -1}, "kappa is -1"),
        (reconstruction, {"projection2": UNIT[:2]}, r"views have shapes \(3, 3\) and \(2, 3\)"),
        (reconstruction, {"projection1": [[1.0]]}, "projection1 is a list. Give a torch.Tensor"),
    ],
)
def test_bad_arguments_are_one_line(function: Any, arguments: dict[str, Any], message: str) -> None:
    usual = {"embeddings": UNIT} if function is entropy else {"projection1": UNIT, "projection2": UNIT}
    with pytest.raises(harness.HarnessError, match=message) as raised:
        function(**usual | arguments)
    assert "\n" not in str(raised.value)
