"""The leaderboard says what the scores say, with ranks that ties deserve, and refuses what must not be compared."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import read_journal, without_checksum
from sklearn.metrics import roc_auc_score
from toys import TOY_PLUGIN, run_suite

from harness.base.errors import RecordsError, UnknownNameError
from harness.reports import board_text as render
from harness.reports.leaderboard import leaderboard


@pytest.fixture
def ran(toy_suite: dict[str, Any], tmp_path: Path) -> Path:
    toy_suite["scorers"] = ["level", "margin", "from_train", {"name": "level", "sign": 1.0}]
    return run_suite(toy_suite, tmp_path / "out").folder


def rewrite(folder: Path, **changes: Any) -> Path:
    """Change fields of every record of a run."""
    records = [{**record, **changes} for record in read_journal(folder)]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def aurocs(folder: Path, scorer: str) -> dict[str, float]:
    found = {}
    for record in read_journal(folder):
        if record["scorer"] == scorer:
            sides = {side: np.load(folder / "scores" / f"{n}.npy") for side, n in record["scores"].items()}
            truth = np.repeat([0, 1], [len(sides["id"]), len(sides["ood"])])
            found[record["ood"]] = float(roc_auc_score(truth, np.concatenate([sides["id"], sides["ood"]])))
    return found


def test_group_means_are_means_over_sets_and_all_is_the_mean_of_near_and_far(ran: Path) -> None:
    frame = leaderboard([ran]).frame.set_index("scorer")
    for scorer in ("level", "margin", "from_train"):
        truth = aurocs(ran, scorer)
        near = (truth["close"] + truth["closer"]) / 2
        assert frame.loc[scorer, "near_auroc"] == pytest.approx(near, abs=1e-12)
        assert frame.loc[scorer, "far_auroc"] == pytest.approx(truth["bright"], abs=1e-12)
        assert frame.loc[scorer, "all_auroc"] == pytest.approx((near + truth["bright"]) / 2, abs=1e-12)
        assert frame.loc[scorer, "near_auroc_lo"] < near < frame.loc[scorer, "near_auroc_hi"]


def test_a_group_interval_shares_the_id_samples(ran: Path) -> None:
    """The variance of the mean over two sets, from the formula, on the logit scale."""
    record = {r["ood"]: r for r in read_journal(ran) if r["scorer"] == "margin"}
    load = {name: np.load(ran / "scores" / f"{r['scores']['ood']}.npy") for name, r in record.items()}
    ids = np.load(ran / "scores" / f"{record['close']['scores']['id']}.npy")
    above = {n: (s[None] > ids[:, None]) + 0.5 * (s[None] == ids[:, None]) for n, s in load.items()}  # (m, n)
    v10 = np.mean([above[n].mean(axis=1) for n in ("close", "closer")], axis=0)
    variance = v10.var(ddof=1) / len(ids)
    variance += sum(above[n].mean(axis=0).var(ddof=1) / len(load[n]) for n in ("close", "closer")) / 4
    mean = v10.mean()
    reach = 1.959963984540054 * np.sqrt(variance) / (mean * (1 - mean))
    logit = np.log(mean / (1 - mean))
    row = leaderboard([ran]).frame.set_index("scorer").loc["margin"]
    assert row["near_auroc_lo"] == pytest.approx(1 / (1 + np.exp(reach - logit)), abs=1e-9)
    assert row["near_auroc_hi"] == pytest.approx(1 / (1 + np.exp(-reach - logit)), abs=1e-9)


def test_the_best_comes_first_and_its_rank_is_one(ran: Path) -> None:
    frame = leaderboard([ran]).frame
    assert frame["all_auroc"].is_monotonic_decreasing
    assert frame["rank_best"].iloc[0] == 1
    assert (frame["rank_best"] <= frame["rank_worst"]).all()


def test_a_scorer_that_is_another_under_a_second_name_shares_its_rank_and_is_counted_once(ran: Path) -> None:
    board = leaderboard([ran])
    frame = board.frame.set_index("scorer")
    assert frame.loc["level(sign=1.0)", "same_as"] == "level"
    assert frame["rank_worst"].max() <= 3
    ranks = frame[["rank_best", "rank_worst"]]
    assert ranks.loc["level"].tolist() == ranks.loc["level(sign=1.0)"].tolist()
    assert "network: level(sign=1.0) gives the scores of level" in board.notes


def test_another_metric_or_group_orders_the_board(ran: Path) -> None:
    board = leaderboard([ran], metric="fpr95_id", group="near")
    assert board.frame["near_fpr95_id"].is_monotonic_increasing
    assert leaderboard([ran], metric="ap_in").frame["all_ap_in"].is_monotonic_decreasing
    with pytest.raises(UnknownNameError, match=r"no metric named 'aurok'\. Did you mean 'auroc'\?"):
        leaderboard([ran], metric="aurok")
    with pytest.raises(UnknownNameError, match=r"no group named 'nearby'\. Did you mean 'near'\?"):
        leaderboard([ran], group="nearby")


def test_csid_is_shown_and_never_ranked(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["shift"] = [{"name": "shifted", "dataset": "levels", "params": {"offset": 5, "seed": 9}}]
    board = leaderboard([run_suite(toy_suite, tmp_path / "out").folder], group="csid")
    assert board.frame["csid_auroc"].notna().all()
    assert board.frame["rank_best"].isna().all()
    ranked = leaderboard([tmp_path / "out"]).frame.set_index("scorer")
    truth = aurocs(tmp_path / "out", "level")
    assert ranked.loc["level", "near_auroc"] == pytest.approx(
        (truth["close"] + truth["closer"]) / 2, abs=1e-12
    )


def test_over_seeds_the_mean_has_students_interval_and_few_seeds_decide_nothing(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    toy_suite["models"] = [{"name": "network", "seeds": [0, 1, 2]}]
    toy_suite["scorers"] = ["margin", "level"]
    folder = run_suite(toy_suite, tmp_path / "out").folder
    values = np.array([r["metrics"]["auroc"]["value"] for r in read_journal(folder)
                       if r["scorer"] == "margin" and r["ood"] == "close"])  # fmt: skip
    board = leaderboard([folder])
    row = board.frame.set_index("scorer").loc["margin"]
    reach = 4.302652729749464 * values.std(ddof=1) / np.sqrt(3)  # t at .975 with 2 degrees of freedom

    assert row["seeds"] == 3
    assert row["close_auroc"] == pytest.approx(values.mean(), abs=1e-12)
    assert row["close_auroc_lo"] == pytest.approx(values.mean() - reach, abs=1e-9)
    assert set(board.frame["rank_best"]) == {1}
    assert set(board.frame["rank_worst"]) == {2}
    assert "network: 3 seeds are too few for ranks; give 5 or more" in board.notes


def test_a_failed_cell_leaves_its_mean_empty_and_unranked(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"].append("raises")
    board = leaderboard([run_suite(toy_suite, tmp_path / "out").folder])
    row = board.frame.set_index("scorer").loc["raises"]
    assert row[["near_auroc", "close_auroc", "rank_best"]].isna().all()
    assert board.frame["scorer"].iloc[-1] == "raises"
    assert "network: raises failed on 3 cells, first: ZeroDivisionError: by design" in board.notes


def test_a_scorer_that_does_not_apply_is_a_row_of_dashes(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["scorers"].append("needs_linear")
    toy_suite["models"] = [{"name": "network", "params": {"head": "distance"}}]
    board = leaderboard([run_suite(toy_suite, tmp_path / "out").folder])
    row = board.frame.set_index("scorer").loc["needs_linear"]
    assert row[["near_auroc", "far_auroc", "close_auroc", "close_fpr95_id", "rank_best"]].isna().all()
    assert board.frame["scorer"].iloc[-1] == "needs_linear"
    assert not [note for note in board.notes if "needs_linear" in note]
    (line,) = [line for line in render.as_markdown(board).splitlines() if "needs_linear" in line]
    assert line.count("| – ") == 11  # the rank, and AUROC and FPR95 of two groups and three sets


def test_records_of_different_suites_digests_protocols_or_data_are_refused_by_name(
    ran: Path, toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    other = run_suite(toy_suite, tmp_path / "other").folder
    for record in (r for r in read_journal(other)):
        cell_id = record["cell_id"]
        break
    assert cell_id in {
        r["cell_id"] for r in read_journal(ran)
    }  # one cell, measured twice: the later folder's wins
    leaderboard([ran, other])
    with pytest.raises(RecordsError, match=r"of different protocols: mixed, separate\. Give one at a time"):
        leaderboard([rename_cells(rewrite(other, protocol="mixed")), ran])
    with pytest.raises(RecordsError, match=r"of different suite digests: .*, ffff\. Give one"):
        leaderboard([rewrite(other, protocol="separate", suite_digest="ffff"), ran])
    with pytest.raises(RecordsError, match=r"of different suites: digits, toy"):
        leaderboard([rewrite(other, suite="digits"), ran])


def rename_cells(folder: Path) -> Path:
    records = [{**record, "cell_id": f"other-{record['cell_id']}"} for record in read_journal(folder)]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_records_over_different_data_of_one_name_are_refused(ran: Path) -> None:
    records = read_journal(ran)
    records[-1]["data"]["id"] = "0" * 32
    (ran / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(RecordsError, match=r"records of 'levels' are of different data: \w{8} and \w{8}"):
        leaderboard([ran])


def test_a_folder_without_records_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match=r"is no run's folder: it has no records\.jsonl. Give a folder"):
        leaderboard([tmp_path])
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(RecordsError, match=r"Run a suite first: ood-harness run SUITE"):
        leaderboard([tmp_path])


def test_every_format_tells_the_same_numbers(ran: Path) -> None:
    board = leaderboard([ran])
    first = board.frame.iloc[0]
    shown = f"{100 * first['near_auroc']:.1f} [{100 * first['near_auroc_lo']:.1f}, {100 * first['near_auroc_hi']:.1f}]"

    (row, *_) = csv.DictReader(io.StringIO(render.as_csv(board)))
    assert float(row["near_auroc"]) == first["near_auroc"]
    assert json.loads(render.as_json(board))["rows"][0]["near_auroc"] == first["near_auroc"]
    markdown = render.as_markdown(board).splitlines()
    assert shown in markdown[2]
    assert markdown[0].count("|") == markdown[2].count("|")
    assert "near FPR95 (ID pos.)" in markdown[0]
    latex = render.as_latex(board)
    assert shown in latex
    assert r"level(sign=1.0) (= level)" in latex


def test_the_files_beside_the_records_are_the_board(ran: Path) -> None:
    import pandas as pd

    board = leaderboard([ran])
    assert (ran / "leaderboard.md").read_text() == render.as_markdown(board)
    assert (ran / "leaderboard.csv").read_text() == render.as_csv(board)
    stored = pd.read_parquet(ran / "leaderboard.parquet")
    assert stored["all_auroc"].tolist() == board.frame["all_auroc"].tolist()


def test_the_ood_positive_convention_is_named_in_the_headers(
    toy_suite: dict[str, Any], tmp_path: Path
) -> None:
    folder = run_suite(toy_suite | {"fpr": "ood"}, tmp_path / "out").folder
    board = leaderboard([folder])
    assert "near FPR95 (OOD pos.)" in render.as_markdown(board)
    expected = [r["metrics"]["fpr95_ood"]["value"] for r in read_journal(folder)
                if r["scorer"] == "margin" and r["ood"] == "close"]  # fmt: skip
    assert board.frame.set_index("scorer").loc["margin", "close_fpr95_ood"] == expected[0]


def test_runs_whose_model_changed_stand_on_no_common_board(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    one = run_suite(toy_suite, tmp_path / "one").folder
    changed = TOY_PLUGIN.read_text().replace("shift=0.1 * request.seed", "shift=0.3")
    (tmp_path / "toy_plugin.py").write_text(changed)
    other = run_suite(toy_suite, tmp_path / "other", plugins=(tmp_path / "toy_plugin.py",)).folder
    with pytest.raises(
        RecordsError, match=r"measured differently: the model network \(seed 0\), .*and \d+ more"
    ):
        leaderboard([one, other])
    (other / "run.json").unlink()
    with pytest.raises(
        RecordsError, match=r"measured differently: model on id with network \(seed 0\), from_train on"
    ):
        leaderboard([one, other])


def test_a_groups_mean_is_that_of_the_cells_shown(ran: Path, tmp_path: Path) -> None:
    blocks = [without_checksum(block) for block in json.loads((ran / "paired.json").read_text())]
    for block in blocks:
        block["auroc"] = [0.9 * value + 0.01 for value in block["auroc"]]
    (ran / "paired.json").write_text(json.dumps(blocks))
    frame = leaderboard([ran]).frame
    assert np.allclose(frame["far_auroc"], frame["bright_auroc"], rtol=0, atol=1e-12)
    assert frame["far_auroc_lo"].isna().all()
