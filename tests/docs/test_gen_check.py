"""The numbers of docs/gen-check.md are those of the committed runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.reports.runs import mean_over_sets, read_runs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "gen-check.md").read_text()
MODELS = {"ten": "mnist-toy-10", "five": "mnist-toy-5"}
SEEDS = range(5)


def values(run: str) -> dict[tuple[str, str, int, str], float]:
    """Read a run: model, scorer, seed and metric to the value."""
    runs = read_runs([ROOT / "results" / run])
    return {
        (model, scorer, seed, metric): mean_over_sets(of_scorer, seed, runs.sets, "all", metric)
        for (model, *_), rows in runs.rows.items()
        for scorer, of_scorer in rows.items()
        for seed in SEEDS
        for metric in ("auroc", "fpr95_ood")
    }


def cells(first: str) -> list[list[str]]:
    """Read the rows of the tables that are headed so, without the header."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, flags=re.MULTILINE)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for table in tables
        for line in table.splitlines()
    ]


def test_the_seeds_and_their_ranges() -> None:
    found = values("mnist-split")
    for name, *shown in cells("outputs"):
        of_gen = [
            [found[MODELS[name], "gen", seed, metric] for metric in ("auroc", "fpr95_ood")] for seed in SEEDS
        ]
        assert shown == [f"{auroc:.3f}, {fpr:.3f}" for auroc, fpr in of_gen]
        (aurocs, fprs) = zip(*of_gen, strict=True)
        ranges = f"AUROC {min(aurocs):.3f} to {max(aurocs):.3f} and FPR95 {min(fprs):.3f} to {max(fprs):.3f}"
        assert ranges in TEXT.replace("\n", " ")
        inside = min(aurocs) <= 0.914862 <= max(aurocs), min(fprs) <= 0.529675 <= max(fprs)
        assert inside == ((True, True) if name == "ten" else (False, False))


def test_the_scores_that_are_ahead_of_gen() -> None:
    found = values("mnist-split")
    for model in MODELS.values():
        for seed in SEEDS:
            gen, energy, knn, vim = (
                found[model, name, seed, "auroc"] for name in ("gen", "energy", "knn", "vim")
            )
            assert gen < energy < min(knn, vim), (model, seed)


@pytest.mark.parametrize("outputs", MODELS)
def test_the_sweep(outputs: str) -> None:
    found = values("mnist-split-gen-sweep")
    gammas = [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0]
    rows = cells(f"{outputs} outputs")
    assert rows
    names = {scorer for model, scorer, _, _ in found if model == MODELS[outputs]}
    for label, *shown in rows:
        top_m = int(label.removeprefix("M = "))
        expected = []
        for gamma in gammas:
            (name,) = {n for n in names if parameters(n) == (gamma, top_m)}
            expected.append(
                100 * sum(found[MODELS[outputs], name, seed, "auroc"] for seed in SEEDS) / len(SEEDS)
            )
        assert [float(cell) for cell in shown] == pytest.approx(expected, abs=0.051)


def parameters(name: str) -> tuple[float, int]:
    """Read γ and M from a scorer's name, "gen(gamma=0.5,top_m=3)", with its defaults."""
    given = {"gamma": 0.1, "top_m": 100.0} | {
        key: float(value) for key, value in re.findall(r"(\w+)=([\d.]+)", name)
    }
    return given["gamma"], int(given["top_m"])
