"""What the documents show of plugins works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student

import harness
from harness.reports.contrast import contrast
from harness.reports.runs import mean_over_sets, read_runs

DOCS = Path(__file__).parents[2] / "docs"
IMPORTS = "from dataclasses import dataclass\n\nfrom torch import Tensor, nn\n\nimport harness\n\n\n"
RECIPE = """
schema = 1
name = "focused"
model = "mlp"
objective = "focal"
objective_params = { focus = 1.0 }
lr = 0.01
epochs = 1
batch_size = 64

[preprocessing]
input_size = [1, 8, 8]
"""


def test_the_objective_in_the_training_document_trains() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (DOCS / "training.md").read_text(), flags=re.DOTALL)
    Path("focal.py").write_text(IMPORTS + shown)
    Path("focused.toml").write_text(RECIPE)
    (folder,) = harness.train("focused.toml", suite="digits", plugins=["focal.py"], out="out", device="cpu")
    registry = harness.Registry.load([Path("focal.py")], blocked=())
    model = harness.load_checkpoint(folder, catalogue=registry)
    assert model.facts["objective"] == {"name": "focal", "params": {"focus": 1.0}}
    assert model.facts["validation_accuracy"] > 0.5  # type: ignore[operator]

    focal = registry.get("objective", "focal").spec.build(focus=2.0)
    logits, targets = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]]), np.array([0, 2])
    p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(2), targets]
    expected = -((1 - p) ** 2 * np.log(p)).mean()
    assert focal.loss(torch.from_numpy(logits), torch.from_numpy(targets)).item() == pytest.approx(expected)


def test_every_key_of_a_recipe_is_explained() -> None:
    from harness.models.training.recipe import AugmentationTable, PreprocessingTable, Recipe

    text = (DOCS / "training.md").read_text()
    for table in (Recipe, AugmentationTable, PreprocessingTable):
        for key in set(table.keys()) - {"description"}:
            assert f"`{key}`" in text or f"`[{key}]`" in text, key


@pytest.mark.parametrize("dataset", ["fashion-mnist", "mnist"])
def test_the_numbers_of_the_isomax_check_are_those_of_the_committed_boards(dataset: str) -> None:
    text = (DOCS / "isomax-check.md").read_text()
    folder = DOCS.parent / "results" / f"{dataset}-objectives"
    runs = read_runs([folder])
    scorers = ["entropic", "min_distance", "msp", "gen", "energy", "knn", "mahalanobis_pp", "dse"]
    for (model, *_), rows in runs.rows.items():
        means = {
            (name, metric): 100
            * np.mean([mean_over_sets(rows[name], s, runs.sets, "all", metric) for s in range(5)])
            for name in scorers
            for metric in ("auroc", "tnr95_id")
        }
        cells = [f"{means[name, 'auroc']:.1f} ({means[name, 'tnr95_id']:.0f})" for name in scorers]
        title = {"softmax": "cross-entropy", "isomax": "IsoMax", "isomaxplus": "IsoMax+"}[model]
        assert f"| {title} | {' | '.join(cells)} |" in text

    found = contrast(folder, "softmax/entropic", "isomaxplus/min_distance")
    row = next(r for r in found.rows if (r["on"], r["metric"]) == ("all", "auroc"))
    assert {"fashion-mnist": "B is better", "mnist": "undecided"}[dataset] == found.verdict
    assert found.accuracy_verdict.startswith("equal")
    shown = f"{100 * row['a']:.1f} | {100 * row['b']:.1f} | +{100 * row['difference']:.1f} ["
    assert shown in text
    assert f"+{100 * row['hi']:.1f}] | {row['p']:.3f} |" in text


@pytest.mark.parametrize(
    ("dataset", "a", "b", "shown"),
    [
        ("fashion-mnist", "softmax/entropic", "isomax/entropic", "+15.2 [+8.7, +21.7] over cross-entropy, p = 0.003"),
        ("fashion-mnist", "isomaxplus/min_distance", "isomax/entropic",
         "5.9 [2.7, 9.1] ahead of IsoMax+ with the minimum distance, p = 0.007"),
        ("mnist", "softmax/entropic", "isomax/min_distance",
         "+28.6 [+2.2, +55.0] over cross-entropy with the entropic score, p = 0.039"),
        ("fashion-mnist", "softmax/energy", "isomaxplus/min_distance", "(+3.2 [−4.2, +10.7], p = 0.30)"),
        ("mnist", "softmax/energy", "isomaxplus/min_distance", "(+29.4 [+7.6, +51.2], p = 0.020)"),
        ("fashion-mnist", "softmax/knn", "isomaxplus/knn", "1.7 [1.0, 2.4] with IsoMax+ on Fashion-MNIST, p = 0.003"),
        ("mnist", "softmax/knn", "isomaxplus/knn", "0.14 [0.08, 0.20] on MNIST, p = 0.003"),
        ("fashion-mnist", "isomaxplus/min_distance", "softmax/dse",
         "9.6 [6.9, 12.4] above IsoMax+ with the minimum distance on Fashion-MNIST, p = 0.0006"),
    ],
)  # fmt: skip
def test_the_comparisons_of_the_isomax_check_are_those_of_the_committed_boards(
    dataset: str, a: str, b: str, shown: str
) -> None:
    assert shown in " ".join((DOCS / "isomax-check.md").read_text().split())
    found = contrast(DOCS.parent / "results" / f"{dataset}-objectives", a, b)
    row = next(r for r in found.rows if (r["on"], r["metric"]) == ("all", "auroc"))
    *interval, p = re.findall(r"[+−]?\d+\.\d+", shown)
    for text, key in zip(interval, ("difference", "lo", "hi"), strict=True):
        half = 0.51 * 10 ** -len(text.partition(".")[2])
        assert float(text.replace("−", "-")) == pytest.approx(100 * row[key], abs=half)
    assert float(p) == pytest.approx(row["p"], abs=0.51 * 10 ** -len(p.partition(".")[2]))


@pytest.mark.parametrize(("header", "model"), [("BatchNorm", "batchnorm"), ("GroupNorm", "groupnorm")])
def test_the_errors_of_adapters_are_those_of_the_committed_table(header: str, model: str) -> None:
    text = (DOCS / "adaptation.md").read_text()
    (table,) = re.findall(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    whole = pd.read_csv(DOCS.parent / "results" / "fashion-mnist-c" / "adaptation.csv")
    measured = whole[whole["model"] == f"fashion-mnist-{model}"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {row[0].strip("`") for row in rows} == set(measured["adapter"])
    for name, *cells in rows:
        of_adapter = measured[measured["adapter"] == name.strip("`")]
        places = [(severity, protocol) for severity in (5, 3) for protocol in ("episodic", "continual")]
        for cell, (severity, protocol) in zip(cells[:4], places, strict=True):
            there = of_adapter["set"].str.endswith(f"-{severity}") & (of_adapter["protocol"] == protocol)
            assert of_adapter[there]["set"].nunique() == 15
            by_seed = 100 * of_adapter[there].groupby("seed")["error"].mean()
            assert len(by_seed) == 3
            reach = student.ppf(0.975, 2) * by_seed.std() / 3**0.5
            expected = by_seed.mean(), max(by_seed.mean() - reach, 0), min(by_seed.mean() + reach, 100)
            assert [float(n) for n in re.findall(r"[\d.]+", cell)] == pytest.approx(expected, abs=0.06)
        continual = of_adapter[(of_adapter["protocol"] == "continual") & of_adapter["set"].str.endswith("-5")]
        for cell, column in zip(cells[4:], ("id_error", "updated"), strict=True):
            assert float(cell) == pytest.approx(100 * continual[column].mean(), abs=0.06)


def test_the_estimator_in_the_plugin_document_estimates(tmp_path: Path) -> None:
    text = (DOCS / "plugins.md").read_text()
    (shown,) = [
        code
        for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        if "harness_estimators" in code
    ]
    (tmp_path / "margin.py").write_text(shown)
    registry = harness.Registry.load([tmp_path / "margin.py"], blocked=())
    logits = np.random.default_rng(0).normal(size=(7, 4))
    features = harness.FeatureSet.of(harness.Features(logits=torch.from_numpy(logits)), chunk_size=3)
    target = harness.Unlabelled(features, batch=lambda positions: torch.zeros(0), model=lambda: None)
    p = np.sort(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), axis=1)
    found = registry.get("estimator", "margin").spec.build().estimate(target)
    assert found.score == pytest.approx((p[:, -1] - p[:, -2]).mean())
    assert found.accuracy is None


def test_ood_detection_under_adaptation_is_that_of_the_committed_board() -> None:
    text = (DOCS / "adaptation.md").read_text()
    board = pd.read_csv(DOCS.parent / "results" / "fashion-mnist-mixed" / "leaderboard.csv")
    tables = re.findall(
        r"^\| (BatchNorm|GroupNorm), (\w+ [\d/]+) \| ID accuracy \| (.*) \|\n\|[-|]+\n((?:\|.*\n)+)",
        text,
        flags=re.MULTILINE,
    )
    assert len(tables) == 5
    for network, protocol, header, lines in tables:
        scorers = [name.strip("` ") for name in header.split("|")]
        rows = board[(board["model"] == f"fashion-mnist-{network.lower()}") & (board["protocol"] == protocol)]
        for line in lines.splitlines():
            name, accuracy, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            mine = rows[rows["adapter"].str.partition("(")[0] == name.strip("`")].set_index("scorer")
            assert float(accuracy) == pytest.approx(100 * mine["id_accuracy"].iloc[0], abs=0.051)
            for scorer, cell in zip(scorers, cells, strict=True):
                found = mine.loc[scorer]
                expected = [found["all_auroc"]]
                if name != "`source`":
                    expected.append(found["all_auroc_gain"])
                    assert found["all_auroc_gain"] == pytest.approx(
                        found["all_auroc"]
                        - rows[(rows["adapter"] == "source") & (rows["scorer"] == scorer)]["all_auroc"].item()
                    )
                numbers = [float(number) for number in re.findall(r"[-+]?[\d.]+", cell)]
                assert numbers == pytest.approx([100 * value for value in expected], abs=0.051)
    mixed = board[board["protocol"].str.startswith("mixed")]
    place = ["model", "adapter", "protocol"]
    again = mixed[mixed["scorer"].str.endswith(" (refit)")].assign(
        scorer=lambda f: f["scorer"].str.removesuffix(" (refit)")
    )
    pairs = again.merge(mixed, on=[*place, "scorer"])
    moved = 100 * (pairs["all_auroc_x"] - pairs["all_auroc_y"])
    assert f"by −{-moved.min():.1f} to +{moved.max():.1f} points" in text
    groupnorm = mixed[(mixed["model"] == "fashion-mnist-groupnorm") & (mixed["protocol"] == "mixed 0/50/50")]
    gains = groupnorm[groupnorm["scorer"].isin(["msp", "energy"])].groupby("adapter")["all_auroc_gain"].min()
    losses = [f"{-100 * gains[name]:.1f}" for name in ("tent", "sar", "eta")]
    assert f"up to {losses[0]} points under `tent`, {losses[1]} under `sar` and" in text
    assert f"{losses[2]} under `eta`." in text


@pytest.mark.parametrize(("header", "run"), [("Fashion-MNIST", "fashion-mnist"), ("MNIST", "mnist")])
def test_errors_of_estimates_are_those_of_the_committed_table(header: str, run: str) -> None:
    text = (DOCS / "estimation.md").read_text()
    (table,) = re.findall(
        rf"^\| {header} \| labels seen .*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE
    )
    whole = pd.read_csv(DOCS.parent / "results" / f"{run}-estimation" / "estimates.csv")
    shifted = whole[whole["group"] == "csid"].assign(
        name=lambda f: f["estimator"].str.replace("(steps=40)", "")
    )
    assert shifted.groupby("seed")["set"].nunique().to_dict() == {0: 75, 1: 75, 2: 75}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {row[0].strip("`") for row in rows} == set(shifted["name"])
    errors = {
        name: 100 * (of["estimate"] - of["accuracy"]).abs().mean() for name, of in shifted.groupby("name")
    }
    for name, seen, error, behind, correlation, _ in rows:
        mine = shifted[shifted["name"] == name.strip("`")]
        assert set(mine["supervision"]) == {seen}
        expected = errors[name.strip("`")]
        assert float(error.split()[0]) == pytest.approx(expected, abs=0.051)
        if behind != "–":
            assert float(behind.split()[0]) == pytest.approx(expected - min(errors.values()), abs=0.101)
        of_seeds = [of["estimate"].corr(of["accuracy"], method="spearman") for _, of in mine.groupby("seed")]
        if correlation != "–":
            assert float(correlation) == pytest.approx(np.mean(of_seeds), abs=0.0051)
    flips = shifted[shifted["name"] == "flips"]
    published = np.polyval([3.55553868e-4, -0.321445023, 75.6618580], 500.5 * flips["score"]).clip(0, 100)
    off = np.abs(published - 100 * flips["accuracy"]).mean()
    assert f"{off:.1f} points on {header}" in text
