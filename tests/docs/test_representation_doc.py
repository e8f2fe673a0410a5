"""The numbers in docs/representation.md are those of the committed tables, and its probe of a stranger works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import sem, spearmanr
from scipy.stats import t as student_t

import harness
from harness.evaluations.probes.table import probe_table
from harness.statistics.intervals import correlation_interval
from harness_plugins.probes.er import __main__ as er_check

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "representation.md").read_text()
STUDIES = ROOT / "results" / "studies"


def rows(first_header: str) -> dict[str, list[str]]:
    """Read the document's table whose first column is headed so: cells by the first column."""
    (table,) = re.findall(
        rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, flags=re.MULTILINE
    )
    cells = [re.split(r" (?<!\\)\| ", line.strip("| \n")) for line in table.splitlines()]
    return {line[0].replace("\\", ""): line[1:] for line in cells}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d*\.\d+", text.replace("−", "-"))]


def test_the_printed_check_of_er() -> None:
    """The labels as printed, the values up to the rounding of another processor."""
    (shown,) = re.findall(r"```text\n(Continuous entropy\n.*?)```", TEXT, re.DOTALL)
    printed = list(er_check.text(0))
    assert len(shown.splitlines()) == len(printed) - 2  # without the verdict
    for line, expected in zip(shown.splitlines(), printed, strict=False):
        number = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
        assert re.sub(rf"{number} *", "", line) == re.sub(rf"{number} *", "", expected)
        found, wanted = ([float(n) for n in re.findall(number, text)] for text in (line, expected))
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_accuracy_across_families() -> None:
    table = probe_table([ROOT / "results/fashion-mnist-information"])
    frame, found = table.frame, table.correlations.set_index("probe")
    labels = {"DSMI(Z; Y)": "dsmi", "DSMI(Z; X)": "dsmi_inputs", "DSE(Z)": "dse"}
    shown = rows("measure")
    assert len(shown) == len(found)
    for title, (ranks, linear, without) in shown.items():
        name, _, width = title.partition(", σ = ")
        probe = labels[name] + ("" if width == "10" else f"(sigma={width})")
        row, of_probe = found.loc[probe], frame[frame["probe"] == probe]
        signed = [
            [float(n) for n in re.findall(r"[+-]\d\.\d+", t.replace("−", "-"))] for t in (ranks, linear)
        ]
        assert signed[0] == pytest.approx([row["correlation"], row["lo"], row["hi"]], abs=0.0051)
        assert signed[1] == pytest.approx([row["pearson"], row["pearson_lo"], row["pearson_hi"]], abs=0.0051)
        rest = of_probe[~of_probe["model"].isin(["lcnet", "cait"])]
        expected = np.corrcoef(rest["value"], rest["accuracy"])[0, 1]
        assert float(without.replace("−", "-")) == pytest.approx(expected, abs=0.0051)
    accuracies = 100 * of_probe.set_index("model")["accuracy"]
    assert len(accuracies) == 16
    assert sorted(accuracies)[:2] == pytest.approx([36.9, 59.2], abs=0.051)
    assert ((accuracies >= 80.5) & (accuracies <= 83.11)).sum() == 10
    assert correlation_interval(0.31, 14) == pytest.approx((-0.264, 0.722), abs=0.001)
    assert 196 * np.sqrt(0.82 * 0.18 / 2000) == pytest.approx(1.7, abs=0.05)


def test_drift() -> None:
    table = pd.read_csv(STUDIES / "drift.csv")
    means = table.pivot_table(index="detector", columns="percent", values="auroc")
    shown = rows("detector")
    assert len(shown) == len(means)
    for name, cells in shown.items():
        detector = name.replace("−", "-").replace("| / sd", "|/sd")
        expected = means.loc[detector, [5, 10, 25, 50]]
        assert [float(cell) for cell in cells] == pytest.approx(expected.tolist(), abs=0.005)


def test_the_sign_of_dse_change() -> None:
    table = pd.read_csv(STUDIES / "dse_change.csv")
    means = table.groupby(["ood", "scorer", "multiple"])["auroc"].mean()
    for name, cells in rows("scorer and time").items():
        expected = means["digits 5-9", name.replace("`", "")].loc[[1 / 16, 1 / 4, 1 / 2, 1, 4, 16]]
        assert [float(cell) for cell in cells] == pytest.approx(expected.tolist(), abs=0.005)
    changes = means[means.index.get_level_values("scorer") != "dse"]
    assert f"from {changes.max():.2f} to {changes.min():.2f}".replace("0.", ".") in TEXT.replace("\n", " ")
    at_half = table[table["multiple"] == 0.5]["sigma"]
    assert at_half.between(9, 12).all()  # the published width is about half the median


def test_other_estimators_of_information() -> None:
    table = pd.read_csv(STUDIES / "information.csv")
    means = table.groupby(["shape", "estimator", "dimension"])["bits"].mean()
    part = TEXT[TEXT.index("## Beside other estimators") : TEXT.index("## Does it tell accuracy?")]
    cases = [("Gaussians", d) for d in (1, 5, 20, 500)]
    cases += [(shape, d) for shape in ("blobs", "blobs in a cube") for d in (5, 100, 500)]
    lines = re.findall(r"^\| ((?:truth|DSMI|KSG|MINE|binned).*?) \| (.*) \|$", part, flags=re.MULTILINE)
    assert len(lines) == 7
    for name, cells in lines:
        expected = [means[shape, name, d] for shape, d in cases]
        assert numbers(cells) == pytest.approx(expected, abs=0.006)
    error = (means - means.xs("truth", level="estimator")).abs().reorder_levels([1, 0, 2])
    worse = [case for way in ("DSMI, σ = √d", "DSMI, σ by neighbours") for case in error["KSG"].index
             if case != ("labels", 20) and error["KSG"][case] > error[way][case]]  # fmt: skip
    assert set(worse) == {("Gaussians", 500)}
    cube = means["blobs in a cube"]
    assert cube["KSG"].between(2.30, 2.33).all()
    most = max(
        (cube[way] / cube["truth"]).loc[100:].max() for way in ("DSMI, σ = √d", "DSMI, σ by neighbours")
    )
    assert f"DSMI finds {100 * most:.0f} %" in part
    half = table[(table["shape"] == "labels") & (table["redrawn"] == 0.5)].groupby("estimator")["bits"].mean()
    for way in ("truth", "KSG", "DSMI, σ = √d", "DSMI, σ by neighbours"):
        assert f"{half[way]:.2f}" in part
    draws = table.pivot_table(
        index=["shape", "dimension", "redrawn", "draw"], columns="estimator", values="bits"
    )
    np.testing.assert_allclose(draws["dse-dsmi, σ = √d"], draws["DSMI, σ = √d"], atol=2e-6)
    seconds = table[table["shape"] == "blobs"].groupby(["estimator", "dimension"])["seconds"].mean()
    assert f"{seconds['DSMI, σ = √d', 2]:.2f} to {seconds['DSMI, σ = √d', 500]:.2f} seconds" in part
    assert f"{seconds['KSG', 2]:.3f} to {seconds['KSG', 500]:.3f}" in part
    assert f"MINE takes {seconds['MINE', 2]:.1f} to {seconds['MINE', 500]:.1f} seconds" in part


def test_correlation_with_accuracy() -> None:
    written = (STUDIES / "correlation.md").read_text()
    for name, cell in rows_of_correlation().items():
        probe = name.split("`")[1]
        width = "(sigma=neighbour)" if "neighbours" in name else ""
        (expected,) = re.findall(
            rf"^\| {re.escape(probe + width)} \| id \| \d+ \| (.*) \|$", written, flags=re.MULTILINE
        )
        assert numbers(cell) == numbers(expected)


def test_correlation_within_convnets() -> None:
    table = pd.read_csv(STUDIES / "correlation.csv")
    convnets = table[(table["probe"] == "dsmi") & table["model"].str.startswith("cnn")]
    assert len(convnets) == 8
    (stated,) = re.findall(r"does follow accuracy \((.*?)\)", TEXT)
    assert spearmanr(convnets["value"], convnets["accuracy"]).statistic == pytest.approx(
        float(stated), abs=0.006
    )


def rows_of_correlation() -> dict[str, str]:
    part = TEXT[TEXT.index("## Does it tell accuracy?") :]
    lines = re.findall(r"^\| (`.*?) \| (.*) \|$", part[: part.index("![")], flags=re.MULTILINE)
    assert len(lines) == 6
    return dict(lines)


def test_along_training() -> None:
    table = pd.read_csv(STUDIES / "dynamics.csv")
    ends = table[table["epoch"] == table["epoch"].max()].groupby(["on", "condition"]).mean(numeric_only=True)
    on_test, on_train = ends.loc["test"], ends.loc["train"]
    part = TEXT[TEXT.index("## Along training") : TEXT.index("## At initialisation")]
    for value in (
        on_test.loc["true labels", "dse_10"],
        on_test.loc["shuffled labels", "dse_10"],
        on_test.loc["true labels", "dsmi_y_10"],
        on_test.loc["shuffled labels", "dsmi_y_10"],
        on_test.loc["true labels", "dse_neighbour"],
        on_test.loc["shuffled labels", "dse_neighbour"],
        on_test.loc["shuffled labels", "dsmi_y_neighbour"],
        on_train.loc["shuffled labels", "dsmi_y_10"],
        on_test.loc["true labels", "er_bound"],
    ):
        assert f"{value:.2f}" in part
    starts = table[table["epoch"] == 0].groupby("on")["dse_neighbour"].mean()
    for value in (starts["test"], starts["train"], on_train.loc["shuffled labels", "dse_neighbour"]):
        assert f"{value:.2f}" in part
    for condition in ("true labels", "shuffled labels"):
        assert f"{100 * on_test.loc[condition, 'accuracy']:.0f} %" in part
        assert on_train.loc[condition, "accuracy"] == 1
    assert on_test.loc["shuffled labels", "er_bound"] < 0


def test_initialisation() -> None:
    table = pd.read_csv(STUDIES / "initialisation.csv")
    means = table.groupby(["network", "sigma", "epoch"]).mean(numeric_only=True)
    part = TEXT[TEXT.index("## At initialisation") : TEXT.index("## Small samples")]
    for network, sigma, epoch in (
        ("with BatchNorm", 0.01, 3),
        ("with BatchNorm", 0.3, 3),
        ("without", 0.01, 3),
        ("without", 0.3, 3),
        ("without", 0.01, 1),
        ("without", 0.3, 1),
    ):
        assert f"{100 * means.loc[(network, sigma, epoch), 'accuracy']:.1f} %" in part
    untrained = means.xs(0, level="epoch")
    assert f"{untrained.loc[('with BatchNorm', 0.3), 'dse_10']:.2f} = log2 1000" in part
    short, long = (untrained.loc[("without", sigma), "feature_norm"] for sigma in (0.01, 0.3))
    assert f"({short:.2f} at\nσ = 0.01, {long:.0f} at 0.3" in part
    of_networks = means["dse_neighbour"].groupby("network")
    assert np.allclose(of_networks.max(), of_networks.min(), atol=1e-3)  # the same for every sigma


def test_the_probe_of_the_plugin_document_is_the_effective_rank() -> None:
    (shown,) = re.findall(
        r'```python\n("""The effective rank.*?)```', (ROOT / "docs/plugins.md").read_text(), re.DOTALL
    )
    Path("effective_rank.py").write_text(shown)
    registry = harness.Registry.load([Path("effective_rank.py")], blocked=())
    probe = registry.get("probe", "effective_rank").spec.build()
    corners = torch.cat([torch.eye(4), -torch.eye(4)])  # four directions, all alike
    found = probe.measure(harness.FeatureSet.of(harness.Features(penultimate=corners)))
    assert found.value == pytest.approx(4)


def test_the_python_code_runs() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 4, generator=generator)
    units = torch.nn.functional.normalize(z, dim=1)
    given = {
        "x": z,
        "z": z,
        "units": units,
        "embeddings": units,
        "projection1": units,
        "projection2": units.flip(0),
        "images": torch.rand(60, 9, generator=generator).numpy(),
        "labels": torch.arange(60) % 3,
    }
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        names = dict(given)
        exec(code, names)  # type: ignore[arg-type]
        if "dsmi" in names:
            assert names["clusters"].shape == (60,)  # type: ignore[union-attr]
            assert -1 < names["asmi"] < np.log2(60)  # type: ignore[operator]


def test_encoders() -> None:
    folder = ROOT / "results" / "fashion-mnist-encoders"
    board, probes = pd.read_csv(folder / "leaderboard.csv"), pd.read_csv(folder / "probes.csv")
    recipes = {"InfoNCE": "infonce", "ER": "er", "ER, teacher at 0.99": "er-ema", "BYOL": "byol"}
    shown = rows("encoder")
    assert set(shown) == set(recipes)
    for name, cells in shown.items():
        label = f"fashion-mnist-{recipes[name]}"
        measured = probes[probes["model"] == label].set_index(["probe", "on"])["value"]
        for cell, probe in zip(cells, ("knn_accuracy", "linear_probe_accuracy"), strict=False):
            assert float(cell) == pytest.approx(100 * measured[probe, "id"], abs=0.06)
        of_model = board[board["model"] == label].set_index("scorer")
        for cell, scorer in zip(
            cells[2:], ("mahalanobis", "dse", "mahalanobis_pp", "vmf_kde", "knn"), strict=True
        ):
            expected = 100 * of_model.loc[scorer, ["near_auroc", "far_auroc"]].astype(float)
            assert numbers(cell) == pytest.approx(expected.tolist(), abs=0.06)
        assert of_model.loc["energy", "near_auroc"] != of_model.loc["energy", "near_auroc"]  # – on the board


def test_er_against_each_objective() -> None:
    table = pd.read_csv(STUDIES / "families.csv")
    assert table.groupby("recipe")["seed"].nunique().eq(3).all()
    stated = pd.read_csv(STUDIES / "families-intervals.csv").set_index(["recipe", "measure"])
    recipes = {
        "SimCLR": ("infonce", "er"),
        "BYOL": ("byol", "er-ema"),
        "DINO": ("dino", "er-dino"),
        "SwAV": ("swav", "er-swav"),
        "DeepCluster": ("deepcluster", "er-swav"),
        "untrained": ("untrained",),
    }
    shown = rows("family")
    assert set(shown) == set(recipes)
    for name, cells in shown.items():
        wanted = [(recipe, measure) for measure in ("knn", "linear") for recipe in recipes[name]]
        measured = [cell for cell in cells if cell != "–"]
        for cell, (recipe, measure) in zip(measured, wanted, strict=True):
            values = table[table["recipe"] == recipe][measure]
            half = student_t.ppf(0.975, len(values) - 1) * sem(values)
            mean, lo, hi = values.mean(), values.mean() - half, values.mean() + half
            assert numbers(cell) == pytest.approx([100 * mean, 100 * lo, 100 * hi], abs=0.06)
            of_recipe = stated.loc[(recipe, measure), ["mean", "lo", "hi"]].astype(float)
            assert of_recipe.tolist() == pytest.approx([mean, lo, hi], abs=1e-5)
    of = table.set_index(["recipe", "seed"])
    told = {("SimCLR", "knn"): -3.0, ("BYOL", "knn"): 10.4, ("SwAV", "linear"): -3.5}  # as the text has them
    for measure in ("knn", "linear"):
        for family, (objective, *er) in recipes.items():
            if er:
                differences = of.loc[er[0], measure] - of.loc[objective, measure]
                half = student_t.ppf(0.975, len(differences) - 1) * sem(differences)
                is_told = abs(differences.mean()) > half
                assert is_told == ((family, measure) in told)
                if is_told:
                    assert told[family, measure] == pytest.approx(100 * differences.mean(), abs=0.06)
    above = {
        recipe
        for recipe in table["recipe"].unique()
        if (gain := of.loc[recipe, "knn"] - of.loc["untrained", "knn"]).mean()
        > student_t.ppf(0.975, len(gain) - 1) * sem(gain)
    }
    assert above == {"infonce", "er-ema", "dino", "er-dino", "swav", "er-swav", "deepcluster"}


def test_stability() -> None:
    table = pd.read_csv(STUDIES / "stability.csv")
    assert table.groupby(["method", "batch", "momentum"], dropna=False)["seed"].nunique().eq(3).all()
    shown = rows("method")
    for name, cells in shown.items():
        method, _, momentum = name.partition(" at ")
        of_method = table[
            (table["method"] == method)
            & (table["momentum"].eq(float(momentum)) if momentum else table["momentum"].isna())
        ]
        for cell, batch in zip(cells, (32, 128, 512), strict=True):
            accuracies = 100 * of_method[of_method["batch"] == batch]["knn"]
            expected = [accuracies.mean(), accuracies.std()] if len(accuracies) else []
            assert numbers(cell) == pytest.approx(expected, abs=0.06)


def test_the_trends_of_six_backbones_and_the_papers_claims() -> None:
    for line in (STUDIES / "backbones.md").read_text().splitlines()[2:]:
        assert line in TEXT
    table = pd.read_csv(STUDIES / "backbones.csv").set_index(["dataset", "training", "measure", "sigma"])

    def is_above(measure: str, sigma: str, training: str, dataset: str) -> bool:
        return bool(table.loc[(dataset, training, measure, sigma), "trend_lo"] > 0)

    def is_below(measure: str, sigma: str, training: str, dataset: str) -> bool:
        return bool(table.loc[(dataset, training, measure, sigma), "trend_hi"] < 0)

    fashion, mnist, both = "Fashion-MNIST", "MNIST", ("Fashion-MNIST", "MNIST")
    learnt = ("generalising", "shuffled labels")
    assert all(is_above("DSE(Z)", "10", training, name) for training in learnt for name in both)
    assert all(table.loc[(fashion, training, "DSE(Z)", "10"), "rising"] == 6 for training in learnt)
    assert not is_above("DSE(Z)", "10", "contrastive", fashion)
    assert not any(is_above("DSE(Z)", "median", training, name) for training in learnt for name in both)
    assert is_above("DSE(Z)", "10", "contrastive", mnist)
    assert all(is_below("DSE(Z)", "median", "contrastive", name) for name in both)

    for training in ("generalising", "contrastive"):
        assert all(is_above("DSMI(Z; Y)", "10", training, name) for name in both)
    for name in both:
        assert not is_above("DSMI(Z; Y)", "10", "shuffled labels", name)
        assert not is_below("DSMI(Z; Y)", "10", "shuffled labels", name)
        for measure in ("DSMI(Z; Y)", "DSMI(Z; X)"):
            assert is_below(measure, "median", "shuffled labels", name)
    assert not is_above("DSMI(Z; Y)", "median", "generalising", fashion)

    assert is_above("DSMI(Z; X)", "10", "generalising", mnist)
    assert not is_above("DSMI(Z; X)", "10", "generalising", fashion)
    assert all(is_above("DSMI(Z; X)", "10", "contrastive", name) for name in both)
    assert not is_above("DSMI(Z; X)", "median", "generalising", mnist)
    assert is_above("DSMI(Z; X)", "median", "contrastive", mnist)
    assert is_below("DSMI(Z; X)", "median", "generalising", fashion)
