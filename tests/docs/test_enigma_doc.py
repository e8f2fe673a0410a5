"""The numbers in docs/adaptation.md on "The paper's picture" are those of the committed table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "adaptation.md"
TABLE = pd.read_csv(ROOT / "results" / "studies" / "enigma.csv")
PASSAGES = TABLE[TABLE["adapter"] != "source"]
STEPS = (0, 300, 2000)
COLUMNS = {"accuracy": (100, 1), "distance": (1, 3), "silhouette_predicted": (1, 2), "er_entropy": (1, 2)}
NOISE_TENT = ("gaussian_noise", "batchnorm", "tent")


@pytest.fixture(scope="module")
def section() -> str:
    _, _, rest = DOCUMENT.read_text().partition("## The paper's picture\n")
    assert rest, f"{DOCUMENT} has no section 'The paper's picture'"
    return rest.partition("\n## ")[0]


def passages(corruption: str, network: str, adapter: str) -> pd.DataFrame:
    """Select the passages of one kind, a training each."""
    is_one = PASSAGES[["corruption", "network", "adapter"]] == [corruption, network, adapter]
    return PASSAGES[is_one.all(axis=1)]


def by_step(kind: tuple[str, str, str], column: str) -> pd.Series:
    """Average a column over trainings; NaN where one of them has none."""
    values = passages(*kind).pivot_table(index="step", columns="seed", values=column, dropna=False)
    assert values.shape[1] == 3
    return values.mean(axis=1, skipna=False)


def shown(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def on_one_line(section: str) -> str:
    return " ".join(section.split())


def test_the_table(section: str) -> None:
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    kinds = PASSAGES.groupby(["corruption", "network", "adapter"]).ngroups
    assert len(lines) == len(set(lines)) == kinds
    for line in lines:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        corruption, network, adapter = name.lower().replace("`", "").split(", ")
        kind = (corruption.replace("noise", "gaussian_noise"), network, adapter)
        for cell, (column, (scale, digits)) in zip(cells, COLUMNS.items(), strict=True):
            means = scale * by_step(kind, column)
            assert cell == " → ".join(shown(means[step], digits) for step in STEPS), (name, column)


def test_what_was_seen(section: str) -> None:
    text = on_one_line(section)
    six = PASSAGES[(PASSAGES["corruption"] == "gaussian_noise") & (PASSAGES["network"] == "batchnorm")]
    runs = [run.set_index("step") for _, run in six.groupby(["adapter", "seed"])]
    assert len(runs) == 6
    nearest, best = ({run["distance"].idxmin() for run in runs}, {run["accuracy"].idxmax() for run in runs})
    assert f"distance is least after {min(nearest)} to {max(nearest)} steps" in text
    assert f"accuracy highest after {min(best)} to {max(best)}, then" in text
    for run in runs:
        assert run["silhouette_predicted"].idxmax() == max(run.index)
        assert run["distance"].iloc[-1] < run["distance"].iloc[0]
    most = {run["er_entropy"].idxmax() for run in runs}
    assert f"turns at {min(most)} to {max(most)} steps" in text
    source = TABLE[
        (TABLE["adapter"] == "source") & (TABLE["corruption"] + TABLE["network"] == "gaussian_noisebatchnorm")
    ]
    distance, accuracy = source["distance"].mean(), source["accuracy"].mean()
    assert f"from {distance:.3f}, with accuracy from {100 * accuracy:.1f} %" in text
    for adapter in ("tent", "eta"):
        learnt = by_step(("gaussian_noise", "batchnorm", adapter), "distance")
        assert distance - learnt[0] > learnt[0] - learnt.min()


def test_what_was_seen_in_part(section: str) -> None:
    text = on_one_line(section)
    for _, run in passages("contrast", "groupnorm", "eta").groupby("seed"):
        first, last = run["distance"].iloc[[0, -1]]
        assert run["distance"].min() < first < last
    noise = [run for _, run in passages("gaussian_noise", "groupnorm", "eta").groupby("seed")]
    away, still, follows = noise
    gained = 100 * (away["accuracy"].iloc[-1] - away["accuracy"].iloc[0])
    assert f"one gains {gained:.1f} points" in text
    assert away["distance"].min() == pytest.approx(away["distance"].iloc[0], abs=0.001)
    learnt = (still["updated"] * still["step"].diff()).sum()
    assert f"one learns in {learnt:.0f} of its 2,000 steps" in text
    assert follows["distance"].min() < follows["distance"].iloc[-1] < follows["distance"].iloc[0]
    assert follows["accuracy"].max() > follows["accuracy"].iloc[-1] > follows["accuracy"].iloc[0]


def test_what_was_not_seen(section: str) -> None:
    text = on_one_line(section)
    for adapter, network, corruption in (
        ("tent", "groupnorm", "gaussian_noise"),
        ("tent", "groupnorm", "contrast"),
        ("tent", "batchnorm", "contrast"),
        ("eta", "batchnorm", "contrast"),
    ):
        for column in ("distance", "accuracy"):
            of_kind = by_step((corruption, network, adapter), column)
            assert of_kind.iloc[-1] < of_kind.iloc[0]
        if network == "groupnorm" or adapter == "tent":
            fallen = by_step((corruption, network, adapter), "er_entropy")
            assert fallen.iloc[-1] < fallen.iloc[0]
    true = by_step(("contrast", "batchnorm", "tent"), "silhouette_true")
    assert f"from {shown(true.iloc[0], 2)} to {shown(true.iloc[-1], 2)} (" in text


def test_entropies_and_forgetting(section: str) -> None:
    text = on_one_line(section)
    columns = PASSAGES[["corruption", "network", "adapter"]].drop_duplicates()
    kinds = [(str(c), str(n), str(a)) for c, n, a in columns.itertuples(index=False, name=None)]
    rises = [by_step(kind, "dse_neighbour").iloc[[0, -1]].diff().iloc[-1] for kind in kinds]
    assert f"ends {min(rises):.2f} to {max(rises):.2f} bits higher in every row" in text
    dse, norm = by_step(NOISE_TENT, "dse_10"), by_step(NOISE_TENT, "norm")
    assert f"{dse[0]:.2f} → {dse[2000]:.2f} bits, mean norm {norm[0]:.1f} → {norm[2000]:.1f}" in text
    views = by_step(NOISE_TENT, "er_reconstruction")
    assert f"({' → '.join(shown(views[step], 2) for step in STEPS)} nats" in text
    harmed = by_step(("contrast", "batchnorm", "eta"), "er_entropy")
    assert harmed[2000] > harmed[0]
    first, later, last = (100 * by_step(NOISE_TENT, "clean_accuracy")[step] for step in STEPS)
    assert f"from {first:.1f} to {later:.1f} and {last:.1f} %" in text
