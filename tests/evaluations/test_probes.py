"""Probes in a suite: one number a set from the features that are there anyway, and a table over models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal, records_of
from scipy.stats import pearsonr, spearmanr
from toys import TOY_PLUGIN, as_toml, run_suite, toy_module
from typer.testing import CliRunner

import harness
from harness.base.errors import HarnessError, InputError, RecordsError
from harness.cli import app
from harness.evaluations.pictures import draw
from harness.evaluations.probes.picture import dots
from harness.evaluations.probes.table import probe_table, probe_text
from harness.reports.plots.curves import Choice
from harness.reports.text import as_json, as_markdown
from harness.statistics.intervals import correlation_interval, normal_interval, rank_correlation_interval


@pytest.fixture
def probed(toy_suite: dict[str, Any]) -> dict[str, Any]:
    return toy_suite | {
        "probes": ["mean", {"name": "mean", "plus": 1.0, "standard_error": 0.5}, "from_training", "labels"]
    }


def numbers(folder: Path) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(r["probe"], r["ood"]): r for r in read_journal(folder) if r["kind"] == "probe"}


def test_probes_cost_no_decoding_and_no_forward_pass(
    probed: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    result = run_suite(probed, tmp_path / "out")
    assert result.succeeded
    assert result.counts.decoded == result.counts.forwarded == 5 * 40
    assert set(toy_module().FORWARDED.values()) == {1}
    assert toy_module().FITTED["from_training"] == 1


def test_every_set_has_a_number_and_labels_are_read_where_they_are_those_of_id(
    probed: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(probed, tmp_path / "out")
    found = numbers(tmp_path / "out")
    label = "mean(plus=1.0, standard_error=0.5)"
    assert {name for probe, name in found if probe == "mean"} == {None, "bright", "close", "closer"}
    assert [name for probe, name in found if probe == "labels"] == [None]
    plain, shifted = (found[p, "bright"]["metrics"]["mean"] for p in ("mean", label))
    assert shifted["value"] == pytest.approx(plain["value"] + 1)
    assert (plain["lo"], plain["hi"]) == (None, None)
    assert shifted["hi"] - shifted["lo"] == pytest.approx(2 * 1.959964 * 0.5, abs=1e-6)
    assert found["labels", None]["metrics"]["labels"]["value"] == pytest.approx(np.mean(np.arange(40) % 3))


def test_a_second_run_measures_nothing_and_a_changed_parameter_only_its_own(
    probed: dict[str, Any], tmp_path: Path
) -> None:
    first = run_suite(probed, tmp_path / "out")
    again = run_suite(probed, tmp_path / "out")
    probed["probes"][1] = {"name": "mean", "plus": 2.0}
    changed = run_suite(probed, tmp_path / "out")
    assert (first.measured, again.measured, changed.measured) == (9 + 13, 0, 4)


def test_unruly_probes_are_records_with_an_error_and_stop_nobody(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["probes"] = [
        "mean",
        *({"name": "unruly", "how": how} for how in ("raises", "nan", "number", "undeclared")),
    ]
    result = run_suite(toy_suite, tmp_path / "out")
    errors = {probe: r["error"] for (probe, name), r in numbers(tmp_path / "out").items() if name == "close"}
    assert (result.failed, result.succeeded) == (16, False)
    assert errors["mean"] is None
    assert errors["unruly(how=raises)"] == "ZeroDivisionError: by design"
    assert errors["unruly(how=nan)"] == "gave nan ± None. A measurement must be finite"
    assert errors["unruly(how=number)"] == "gave a float. Return harness.Measurement(value)"
    assert "'logits' was read but not declared" in errors["unruly(how=undeclared)"]
    assert "failed on bright, close" in as_markdown(probe_text(probe_table([tmp_path / "out"])))


def test_an_unreadable_dataset_is_the_error_of_its_probes(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["ood"].append({"name": "gone", "dataset": "unreadable", "group": "far"})
    run_suite(toy_suite | {"probes": ["mean"]}, tmp_path / "out")
    found = numbers(tmp_path / "out")
    assert "is damaged" in found["mean", "gone"]["error"]
    assert found["mean", "bright"]["error"] is None


def test_a_probe_whose_needs_the_data_lack_does_not_apply(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"] = ["level"]
    del toy_suite["id"]["train"]
    result = run_suite(toy_suite | {"probes": ["mean", "from_training"]}, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert result.succeeded
    assert [(a["probe"], a["missing"]) for a in manifest["not_applicable"]] == [("from_training", ["train"])]
    assert {probe for probe, _ in numbers(tmp_path / "out")} == {"mean"}


def test_a_suite_of_probes_alone_needs_neither_scorers_nor_ood(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    suite = toy_suite | {"probes": ["mean"], "scorers": [], "ood": []}
    (tmp_path / "toy.toml").write_text(as_toml_file(suite))
    frame = harness.run(str(tmp_path / "toy.toml"), out=tmp_path / "out", plugins=[TOY_PLUGIN], device="cpu")
    assert frame[["on", "probe"]].values.tolist() == [["id", "mean"]]
    assert not (tmp_path / "out/leaderboard.csv").exists()
    printed = CliRunner().invoke(
        app, ["run", str(tmp_path / "toy.toml"), "--out", str(tmp_path / "out"), "--plugin", str(TOY_PLUGIN)]
    )
    assert printed.exit_code == 0
    assert "probes" in printed.stdout


def as_toml_file(suite: dict[str, Any]) -> str:
    models = "".join(f"\n[[models]]\n{as_toml(entry)}" for entry in suite["models"])
    return as_toml({key: value for key, value in suite.items() if key != "models"}) + models


def test_correlation_is_over_all_trained_models_with_their_accuracies(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    widths = (0.3, 0.5, 0.65, 0.8, 1.0)
    toy_suite["models"] = [
        {"name": "network", "label": f"m{i}", "params": {"std": std}} for i, std in enumerate(widths)
    ]
    run_suite(toy_suite | {"probes": ["mean"]}, tmp_path / "out")
    table = probe_table([tmp_path / "out"])
    on_id = table.frame[table.frame["on"] == "id"]
    assert len(on_id) == len(widths)
    row = table.correlations.set_index("on").loc["id"]
    assert row["models"] == len(widths)
    expected = spearmanr(on_id["value"], on_id["accuracy"]).statistic
    np.testing.assert_equal(row["correlation"], expected)
    linear = pearsonr(on_id["value"], on_id["accuracy"])
    interval = linear.confidence_interval()
    assert (row["pearson"], row["pearson_lo"], row["pearson_hi"]) == pytest.approx(
        (linear.statistic, interval.low, interval.high)
    )
    content = json.loads(as_json(probe_text(table)))
    assert len(content["probes"]) == len(table.frame)
    assert (tmp_path / "out/probes.csv").read_text().count("\n") == len(table.frame) + 1


def test_the_picture_has_a_point_per_trained_model_and_names_the_correlation(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["models"] = [
        {"name": "network", "label": f"m{i}", "params": {"std": std}}
        for i, std in enumerate((0.3, 0.5, 0.65, 0.8, 1.0))
    ]
    run_suite(toy_suite | {"probes": ["mean", "labels"]}, tmp_path / "out")
    table = probe_table([tmp_path / "out"])
    picture = dots(tmp_path / "out", Choice(sets=["id"]))
    row = table.correlations.set_index(["probe", "on"]).loc["mean", "id"]
    title = f"mean on id\n{row['correlation']:+.2f} [{row['lo']:+.2f}, {row['hi']:+.2f}]"
    assert set(picture.panels) == {title, "labels on id"}  # the labels' mean is the same for every model
    of_first = table.frame.query("model == 'm0' and on == 'id' and probe == 'mean'")
    points = picture.panels[title]["m0"]
    assert points[:, 0].tolist() == of_first["value"].tolist()
    assert points[:, 1].tolist() == pytest.approx((100 * of_first["accuracy"]).tolist())
    assert draw("probes", tmp_path / "out", tmp_path / "p.svg", Choice()) == "toy: accuracy over probes"
    with pytest.raises(InputError, match="--model does not apply to probes"):
        draw("probes", tmp_path / "out", tmp_path / "p.svg", Choice(model="m0"))
    with pytest.raises(HarnessError, match="no set named 'colse'"):
        dots(tmp_path / "out", Choice(sets=["colse"]))


def test_folders_without_probes_are_refused_in_one_line(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    run_suite(toy_suite, tmp_path / "out")
    with pytest.raises(RecordsError, match=r"no probes in .*\. Give the suite `probes`, and run it"):
        probe_table([tmp_path / "out"])
    assert records_of(tmp_path / "out", "probe") == {}


def test_an_unknown_probe_or_parameter_is_named_before_anything_runs(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match="meen"):
        run_suite(toy_suite | {"probes": ["meen"]}, tmp_path / "out")
    with pytest.raises(HarnessError, match="minus"):
        run_suite(toy_suite | {"probes": [{"name": "mean", "minus": 1}]}, tmp_path / "out")
    with pytest.raises(
        HarnessError, match="no scorers, and no probes, curves, adapters or estimators either"
    ):
        run_suite(toy_suite | {"scorers": []}, tmp_path / "out")


def test_intervals_of_estimates_and_correlations() -> None:
    assert normal_interval(1.0, None) == (None, None)
    assert normal_interval(1.0, 0.1) == pytest.approx((1 - 0.1959964, 1 + 0.1959964))
    assert rank_correlation_interval(0.5, 3) is None
    low, high = rank_correlation_interval(0.5, 12) or (0, 0)
    reach = 1.959964 * math.sqrt((1 + 0.125) / 9)
    assert (low, high) == pytest.approx(
        (math.tanh(math.atanh(0.5) - reach), math.tanh(math.atanh(0.5) + reach))
    )
    low, high = rank_correlation_interval(1.0, 12) or (0, 0)
    assert 0.9 < low < high == 1.0
    assert correlation_interval(0.5, 3) is None
    assert correlation_interval(-1.0, 12) == (-1.0, -1.0)
    reach = 1.959964 / 3
    assert correlation_interval(0.5, 12) == pytest.approx(
        (math.tanh(math.atanh(0.5) - reach), math.tanh(math.atanh(0.5) + reach))
    )


def test_the_interval_of_a_correlation_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    rho, n, hits, tries = 0.6, 15, 0, 400
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's of a normal pair with Pearson's rho
    for _ in range(tries):
        x = rng.normal(size=n)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
        low, high = rank_correlation_interval(spearmanr(x, y).statistic, n) or (1, -1)
        hits += low <= truth <= high
    assert 0.92 <= hits / tries <= 0.985
