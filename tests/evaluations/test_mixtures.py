"""OOD detection under adaptation: ID and OOD in one stream, adapted to once, scored by all, on boards of their own."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from journals import read_journal, records_of
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from toys import TOY_PLUGIN, as_toml, run_suite, toy_module
from typer.testing import CliRunner

from harness.base.errors import HarnessError, RecordsError, UnknownNameError
from harness.cli import app
from harness.cli.python import run as run_from_python
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.data.mixtures import Mixer, Mixture
from harness.data.opening import open_id
from harness.evaluations.adaptation.section import settings
from harness.evaluations.adaptation.table import adaptation_table
from harness.evaluations.run import plan_suite
from harness.reports import board_text as render
from harness.reports.contrast import contrast
from harness.reports.leaderboard import leaderboard, leaderboards

SEEDS = [0, 1, 2, 3, 4]
EIGHT = {"side": 8}


@pytest.fixture
def mixing(toy_suite: dict[str, Any]) -> dict[str, Any]:
    """Give a suite of three OOD sets, one shift and one adapter, on images of 8×8."""
    suite = copy.deepcopy(toy_suite)
    suite["id"]["params"] = dict(EIGHT)
    for entry in suite["ood"]:
        entry["params"] |= EIGHT
    suite["models"] = [{"name": "network", "params": {"size": 8}}]
    suite["shift"] = [{"corrupt": ["brightness"], "severity": [1]}]
    suite["adapters"] = [{"name": "source", "protocol": "mixed"}, {"name": "slide", "protocol": "mixed"}]
    suite["adaptation"] = {"seeds": SEEDS, "batch_size": 8, "shares": [[0.5, 0, 0.5]]}
    return suite


def scores_of(folder: Path) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Read records of scorers on mixtures by adapter, protocol with its shares, scorer and set."""
    return {
        (r["adapter"], f"{r['protocol']} {r['mixture']['percent']}", r["scorer"], r["ood"]): r
        for r in read_journal(folder)
        if r["kind"] == "score" and "mixture" in r
    }


def mixer(suite: dict[str, Any], size: int = 2000) -> tuple[Mixer, Selection, Mixture]:
    """Open what a mixture of the set `close` under the suite's shift is made of."""
    registry = Registry.load([TOY_PLUGIN])
    plan = plan_suite(suite, registry, source="toy.toml")
    id_data = open_id(plan.suite.id, registry)
    entries = {entry.name: entry for entry in plan.sets}
    outliers = Selection.all_of("close", toy_module().Levels(40, 3, 5, 15, 8))
    mixture = Mixture((0.0, 0.5, 0.5), entries["close"], entries["brightness-1"])
    return Mixer(id_data.test, registry, 8, size), outliers, mixture


# Streams ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "size", "expected"),
    [
        ((0.5, 0.0, 0.5), 2000, (40, 0, 40)),
        ((0.0, 0.9, 0.1), 2000, (0, 40, 4)),
        ((0.0, 0.9, 0.1), 20, (0, 18, 2)),
        ((0.25, 0.25, 0.5), 60, (15, 15, 30)),
        ((0.1, 0.0, 0.9), 2000, (4, 0, 40)),
    ],
)
def test_a_stream_holds_the_shares_that_it_is_said_to(
    mixing: dict[str, Any], shares: tuple[float, float, float], size: int, expected: tuple[int, ...]
) -> None:
    made, outliers, mixture = mixer(mixing, size)
    mixture = Mixture(shares, mixture.ood, mixture.shift if shares[1] else None)
    assert made.counts(mixture, len(outliers)) == expected
    (opened,) = made.streams(mixture, outliers, seed=3, separate=False)
    assert opened.is_ood.sum() == expected[2]
    assert len(opened.stream) == sum(expected)
    assert (opened.stream.labels[opened.is_ood] == -1).all()  # an OOD set's own labels say nothing here
    assert (opened.stream.labels[~opened.is_ood] >= 0).all()
    assert 0 < np.flatnonzero(opened.is_ood).mean() / len(opened.stream) < 1
    assert len({opened.stream.images(np.array([i]))[0].tobytes() for i in range(len(opened.stream))}) == sum(
        expected
    )


def test_ood_carries_the_shift_of_the_id_beside_it(mixing: dict[str, Any]) -> None:
    made, outliers, mixture = mixer(mixing)
    mixture = Mixture((0.25, 0.25, 0.5), mixture.ood, mixture.shift)
    (opened,) = made.streams(mixture, outliers, seed=0, separate=False)
    plain = {outliers.dataset[i].tobytes() for i in range(40)}
    ids = {made.id_test.dataset[i].tobytes() for i in range(40)}
    images = [image.tobytes() for image in opened.stream.images(np.arange(len(opened.stream)))]
    unshifted = {True: 0, False: 0}
    for image, is_ood in zip(images, opened.is_ood, strict=True):
        unshifted[bool(is_ood)] += image in (plain if is_ood else ids)
    assert unshifted == {True: 20, False: 20}  # half of either side's 40


def test_the_seed_alone_decides_the_stream(mixing: dict[str, Any]) -> None:
    made, outliers, mixture = mixer(mixing, 20)
    digests = {
        (seed, separate): [
            s.stream.digest for s in made.streams(mixture, outliers, seed=seed, separate=separate)
        ]
        for seed in (0, 1)
        for separate in (False, True)
    }
    again = made.streams(mixture, outliers, seed=0, separate=False)
    assert digests[0, False] == [again[0].stream.digest]
    assert digests[0, False] != digests[1, False]
    apart = made.streams(mixture, outliers, seed=0, separate=True)
    assert [set(s.is_ood.tolist()) for s in apart] == [{False}, {True}]
    images = [
        sorted(i.tobytes() for s in streams for i in s.stream.images(np.arange(len(s.stream))))
        for streams in (apart, again)
    ]
    assert images[0] == images[1]  # the same samples, not together


def test_a_share_that_comes_to_nothing_is_refused(mixing: dict[str, Any]) -> None:
    made, outliers, mixture = mixer(mixing, 4)
    with pytest.raises(HarnessError, match=r"a stream of 4 images has no OOD at a share of 0\.1"):
        made.counts(Mixture((0.0, 0.9, 0.1), mixture.ood, mixture.shift), len(outliers))


# Numbers ------------------------------------------------------------------------------------------------------------


def outputs_by_hand(
    suite: dict[str, Any], seed: int, *, step: float = 1.0, after: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do what `slide` does on the set `close`, with no harness: logits, labels, and which samples are OOD."""
    made, outliers, mixture = mixer(suite)
    mixture = Mixture((0.5, 0.0, 0.5), mixture.ood, None)
    (opened,) = made.streams(mixture, outliers, seed=seed, separate=False)
    network = toy_module().Network(3, shift=0.0)
    logits = []
    for batch in np.split(np.arange(80), range(8, 80, 8)):
        inputs = torch.from_numpy(np.stack(opened.stream.images(batch))).float()[:, None] / 255
        with torch.no_grad():
            before = network(inputs)
            network.fc.bias[0] += step
            network.fc.weight[0, 1] += 5 * step
            logits.append(network(inputs) if after else before)
    return torch.cat(logits).numpy(), opened.stream.labels, opened.is_ood


def auroc_of_margin(logits: np.ndarray, is_ood: np.ndarray) -> float:
    ordered = np.sort(logits, axis=1)
    return float(roc_auc_score(is_ood, ordered[:, -2] - ordered[:, -1]))


def students(values: list[float]) -> tuple[float, float]:
    mean, reach = np.mean(values), student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1)
    return float(mean - reach / np.sqrt(len(values))), float(mean + reach / np.sqrt(len(values)))


def test_a_record_holds_the_mean_over_streams_with_students_interval(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    assert run_suite(mixing, tmp_path / "out").succeeded
    record = scores_of(tmp_path / "out")["slide", "mixed 50/0/50", "margin", "close"]
    expected, errors = [], []
    for seed in SEEDS:
        logits, labels, is_ood = outputs_by_hand(mixing, seed)
        expected.append(auroc_of_margin(logits, is_ood))
        errors.append(np.mean(logits.argmax(axis=1)[~is_ood] != labels[~is_ood]))
    assert record["by_stream"]["auroc"] == pytest.approx(expected)
    found = record["metrics"]["auroc"]
    assert found["value"] == pytest.approx(np.mean(expected))
    assert (found["lo"], found["hi"]) == pytest.approx(students(expected))
    assert (record["n_id"], record["n_ood"], record["seeds"]["stream"]) == (40, 40, SEEDS)
    adapted = {
        r["seeds"]["stream"]: r["metrics"]
        for r in read_journal(tmp_path / "out")
        if (r["kind"], r["adapter"], r["ood"]) == ("adaptation", "slide", "close")
    }
    assert [adapted[seed]["error"]["value"] for seed in SEEDS] == pytest.approx(errors)  # of ID alone
    assert adapted[0]["updated"]["value"] == 1


def test_what_the_method_scores_after_its_update_is_what_scorers_read(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    mixing["adapters"] = [{"name": "slide", "answers": "after", "protocol": "mixed"}]
    run_suite(mixing, tmp_path / "out")
    record = scores_of(tmp_path / "out")["slide(answers=after)", "mixed 50/0/50", "margin", "close"]
    logits, _, is_ood = outputs_by_hand(mixing, 0, after=True)
    assert record["by_stream"]["auroc"][0] == pytest.approx(auroc_of_margin(logits, is_ood))
    assert record["by_stream"]["auroc"][0] != auroc_of_margin(outputs_by_hand(mixing, 0)[0], is_ood)


def test_separate_streams_begin_anew_for_each_side(mixing: dict[str, Any], tmp_path: Path) -> None:
    mixing["adapters"] = [{"name": "slide", "protocol": "separate"}]
    run_suite(mixing, tmp_path / "out")
    record = scores_of(tmp_path / "out")["slide", "separate 50/0/50", "margin", "close"]
    made, outliers, mixture = mixer(mixing)
    sides = made.streams(Mixture((0.5, 0.0, 0.5), mixture.ood, None), outliers, seed=0, separate=True)
    margins, is_ood = [], []
    for side in sides:
        network = toy_module().Network(3, shift=0.0)
        for batch in side.stream.batches():
            inputs = torch.from_numpy(np.stack(side.stream.images(batch))).float()[:, None] / 255
            with torch.no_grad():
                ordered = network(inputs).sort(dim=1).values
                network.fc.bias[0] += 1
                network.fc.weight[0, 1] += 5
            margins += (ordered[:, -2] - ordered[:, -1]).tolist()
            is_ood += side.is_ood[batch].tolist()
    assert record["by_stream"]["auroc"][0] == pytest.approx(roc_auc_score(is_ood, margins))


def test_under_an_adapter_that_adapts_nothing_scores_are_those_of_the_source(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    """All samples of both sides are in the stream, so that its order cannot matter."""
    run_suite(mixing, tmp_path / "out")
    found = scores_of(tmp_path / "out")
    plain = {
        (r["scorer"], r["ood"]): r["metrics"]["auroc"]["value"]
        for r in read_journal(tmp_path / "out")
        if r["kind"] == "score" and "mixture" not in r
    }
    for scorer in ("level", "margin", "from_train"):
        for name in ("bright", "close", "closer"):
            record = found["source", "mixed 50/0/50", scorer, name]
            assert record["by_stream"]["auroc"] == pytest.approx([plain[scorer, name]] * 5)


def test_scorers_fit_on_the_source_and_once_more_on_what_is_left(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    mixing["adapters"] = [{"name": "brighten", "protocol": "mixed"}]
    mixing["adaptation"]["refit"] = 24
    run_suite(mixing, tmp_path / "out")
    found = scores_of(tmp_path / "out")
    made, outliers, mixture = mixer(mixing)
    (opened,) = made.streams(Mixture((0.5, 0.0, 0.5), mixture.ood, None), outliers, seed=0, separate=False)
    steps = np.repeat([0, 1, 1, 2, 3, 4, 5, 6, 7, 8], 8) * 0.02  # of brightness, batch by batch
    images = np.stack(opened.stream.images(np.arange(80))).mean(axis=(1, 2)) / 255 + steps
    train = np.stack([toy_module().Levels(40, 3, 1, 0, 8)[i] for i in range(40)]).mean(axis=(1, 2)) / 255
    chosen = np.sort(np.random.default_rng(0).choice(40, size=24, replace=False))
    centres = {"from_train": train.mean(), "from_train (refit)": train[chosen].mean() + 0.18}
    for label, centre in centres.items():
        auroc = roc_auc_score(opened.is_ood, np.abs(images - centre))
        assert found["brighten", "mixed 50/0/50", label, "close"]["by_stream"]["auroc"][0] == pytest.approx(
            auroc
        )
    labels = {place[2] for place in found}
    assert labels == {"level", "margin", "from_train", "from_train (refit)"}  # nothing to refit in the others


# One pass -----------------------------------------------------------------------------------------------------------


def test_every_image_of_a_stream_is_decoded_and_forwarded_once_for_all_scorers(
    mixing: dict[str, Any], toys: Any, tmp_path: Path
) -> None:
    mixing["ood"] = mixing["ood"][1:2]
    mixing["adapters"] = [{"name": "slide", "protocol": "mixed"}]
    mixing["adaptation"] |= {"seeds": [0], "after": False}
    run_suite(mixing, tmp_path / "out", cache=tmp_path / "cache")
    module = toy_module()
    outliers = module.Levels(40, 3, 5, 15, 8)
    decoded = Counter(module.DECODED[outliers._images[i].tobytes()] for i in range(40))
    assert decoded.pop(2) >= 36  # under the source by itself, and in the mixture
    assert decoded.keys() <= {3, 4}  # two of a stream are decoded once more
    forwarded = sum(module.FORWARDED.values())
    mixing["scorers"] = ["level", "margin", "from_train", {"name": "level", "sign": -1.0}]
    again = run_suite(mixing, tmp_path / "out", cache=tmp_path / "cache")
    assert again.measured == 3  # the new scorer: on the set and its shift by themselves, and on the mixture
    assert sum(toy_module().FORWARDED.values()) in (0, forwarded)  # nothing was adapted or forwarded again


def test_a_second_run_measures_nothing_and_a_change_only_what_it_touches(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    mixing["adapters"] = [{"name": "slide", "protocol": ["mixed", "separate"]}]
    first, again = (run_suite(mixing, tmp_path / "out", cache=tmp_path / "cache") for _ in range(2))
    mixing["adapters"][0]["step"] = 2.0
    stronger = run_suite(mixing, tmp_path / "out", cache=tmp_path / "cache")
    mixing["adaptation"]["refit"] = 20
    refitted = run_suite(mixing, tmp_path / "out", cache=tmp_path / "cache")
    of_mixtures = 2 * 3 * (3 + 5)  # protocols, sets, scorers and streams
    assert first.measured == 3 * 4 + 2 + of_mixtures - 2  # models' own records are not counted
    assert (again.measured, stronger.measured) == (0, of_mixtures)
    assert refitted.measured == 3 * (3 + 1 + 5)  # mixed anew, with a row more; separate streams have none


def test_the_records_of_equal_runs_are_the_same_bytes(mixing: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_suite(mixing, tmp_path / name, cache=tmp_path / f"cache-{name}")
    assert records_of(tmp_path / "one") == records_of(tmp_path / "two")


def test_an_adapter_meets_the_same_whether_others_ran_before_it_or_not(
    mixing: dict[str, Any], tmp_path: Path
) -> None:
    run_suite(mixing, tmp_path / "both", cache=tmp_path / "cache-both")
    mixing["adapters"] = mixing["adapters"][1:]
    run_suite(mixing, tmp_path / "alone", cache=tmp_path / "cache-alone")
    both, alone = scores_of(tmp_path / "both"), scores_of(tmp_path / "alone")
    assert alone
    assert {place: both[place] for place in alone} == alone


# Boards -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ran(mixing: dict[str, Any], tmp_path: Path) -> Path:
    mixing["adapters"][1]["protocol"] = ["mixed", "separate"]
    mixing["adaptation"]["shares"] = [[0.5, 0, 0.5], [0, 0.9, 0.1]]
    return run_suite(mixing, tmp_path / "out").folder


def test_every_protocol_has_a_board_of_its_own(ran: Path) -> None:
    boards = {board.protocol: board for board in leaderboards([ran])}
    assert list(boards) == ["separate", "mixed 0/90/10", "mixed 50/0/50", "separate 50/0/50"]
    assert set(boards["separate"].frame["adapter"]) == {"source"}
    assert list(boards["mixed 50/0/50"].sets) == ["close", "closer", "bright"]
    assert list(boards["mixed 0/90/10"].sets) == [
        "close+brightness-1", "closer+brightness-1", "bright+brightness-1",
    ]  # fmt: skip
    assert any(
        "slide" in note and "give the answer away" in note for note in boards["separate 50/0/50"].notes
    )
    assert not any("give the answer away" in note for note in boards["mixed 50/0/50"].notes)
    with pytest.raises(RecordsError, match=r"different protocols: mixed 0/90/10, .*--protocol"):
        leaderboard([ran])
    with pytest.raises(UnknownNameError, match=r"no protocol named 'mixed 50/50'"):
        leaderboard([ran], protocol="mixed 50/50")


def test_a_boards_means_gains_and_ranks_are_over_streams(ran: Path) -> None:
    board = leaderboard([ran], protocol="mixed 50/0/50")
    records = scores_of(ran)

    def mean_by_stream(adapter: str, scorer: str) -> np.ndarray:
        near, far = (
            np.mean(
                [records[adapter, "mixed 50/0/50", scorer, n]["by_stream"]["auroc"] for n in names], axis=0
            )
            for names in (["close", "closer"], ["bright"])
        )
        return np.asarray((near + far) / 2)

    rows = {(row["adapter"], row["scorer"]): row for row in board.rows}
    for place, row in rows.items():
        values = mean_by_stream(*place)
        assert row["all_auroc"] == pytest.approx(values.mean())
        if values.std() > 1e-12:
            low, high = students(values.tolist())
            assert (row["all_auroc_lo"], row["all_auroc_hi"]) == pytest.approx((max(low, 0), min(high, 1)))
    gain = mean_by_stream("slide", "margin") - mean_by_stream("source", "margin")
    row = rows["slide", "margin"]
    assert row["all_auroc_gain"] == pytest.approx(gain.mean())
    assert (row["all_auroc_gain_lo"], row["all_auroc_gain_hi"]) == pytest.approx(students(gain.tolist()))
    assert np.isnan(rows["source", "margin"]["all_auroc_gain"])
    assert rows["slide", "level"]["all_auroc_gain"] == pytest.approx(0)  # its features do not move
    assert {row["rank_best"] for row in board.rows} >= {1}
    text = render.as_markdown(board)
    assert "Streams: 50 % ID, 50 % OOD, shuffled together" in text
    assert "| gain |" in text.splitlines()[0]


def test_accuracy_beside_the_scores_is_that_of_id_in_the_streams(ran: Path) -> None:
    board = leaderboard([ran], protocol="mixed 50/0/50")
    errors: dict[int, list[float]] = {}
    for r in read_journal(ran):
        shares = r.get("mixture", {}).get("percent")
        if (r["kind"], r["adapter"], r["protocol"], shares) == ("adaptation", "slide", "mixed", "50/0/50"):
            errors.setdefault(r["seeds"]["stream"], []).append(r["metrics"]["error"]["value"])
    (accuracy,) = {row["id_accuracy"] for row in board.rows if row["adapter"] == "slide"}
    assert accuracy == pytest.approx(1 - np.mean([np.mean(values) for values in errors.values()]))
    table = adaptation_table([ran]).means.set_index(["adapter", "protocol"])
    assert table.loc[("slide", "mixed 50/0/50"), "error"] == pytest.approx(1 - accuracy)


def test_the_files_and_commands_show_each_protocol(ran: Path) -> None:
    boards = leaderboards([ran])
    assert (ran / "leaderboard.md").read_text() == render.as_markdown(*boards)
    assert "## mixed 0/90/10" in (ran / "leaderboard.md").read_text()
    runner = CliRunner()
    whole = runner.invoke(app, ["leaderboard", str(ran)])
    assert whole.exit_code == 0, whole.output
    assert whole.stdout.count("group means") == 4
    one = runner.invoke(app, ["leaderboard", str(ran), "--protocol", "mixed 50/0/50", "--format", "json"])
    assert json.loads(one.stdout)["protocol"] == "mixed 50/0/50"
    every = json.loads(runner.invoke(app, ["leaderboard", str(ran), "--format", "json"]).stdout)
    assert [board["protocol"] for board in every] == [board.protocol for board in boards]
    latex = runner.invoke(app, ["leaderboard", str(ran), "--format", "latex"]).stdout
    assert latex.count(r"\begin{tabular}") == 4
    with pytest.raises(RecordsError, match="--protocol"):
        contrast(ran, "network(size=8)/margin", "network(size=8) + slide/margin")
    found = contrast(
        ran, "network(size=8)/margin", "network(size=8) + slide/margin", protocol="mixed 50/0/50"
    )
    assert found.frame["difference"].iloc[0] != 0


def test_streams_of_other_sizes_do_not_stand_on_one_board(mixing: dict[str, Any], tmp_path: Path) -> None:
    one = run_suite(mixing, tmp_path / "one").folder
    mixing["adaptation"]["batch_size"] = 16
    other = run_suite(mixing, tmp_path / "other").folder
    records = [
        json.dumps(r | {"cell_id": r["cell_id"] + "x", "model": "another"}) + "\n"
        for r in read_journal(other)
    ]
    (other / "records.jsonl").write_text("".join(records))
    with pytest.raises(RecordsError, match="streams of different sizes, batches or seeds"):
        leaderboard([one, other], protocol="mixed 50/0/50")


def test_run_from_python_gives_all_protocols_in_one_frame(mixing: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(as_toml(mixing))
    frame = run_from_python(
        str(tmp_path / "toy.toml"), out=tmp_path / "out", device="cpu", plugins=[TOY_PLUGIN]
    )
    assert set(frame["protocol"]) == {"separate", "mixed 50/0/50"}


# What goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "unruly_adapter", "how": "raises"}, "stream 0: the adapter gave no penultimate"),
        ({"name": "bump"}, "stream 0: the adapter gave no penultimate"),
        ({"name": "slide", "step": 1e39}, "the model has diverged"),
    ],
)
def test_an_adapter_that_fails_is_a_record_with_its_reason_and_the_others_go_on(
    mixing: dict[str, Any], tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    mixing["adapters"].append({**entry, "protocol": "mixed"})
    result = run_suite(mixing, tmp_path / "out")
    assert not result.succeeded
    found = scores_of(tmp_path / "out")
    failed = {place: r["error"] for place, r in found.items() if r["error"]}
    assert {place[0].partition("(")[0] for place in failed} == {entry["name"]} or entry["name"] == "slide"
    assert all(message in error for error in failed.values())
    assert len(failed) == 9
    assert result.failed == 9 + 15  # scorers on three sets, and the streams themselves
    again = run_suite(mixing, tmp_path / "out")
    assert again.measured == 9 + 15


def test_a_scorer_that_fails_fails_alone(mixing: dict[str, Any], tmp_path: Path) -> None:
    mixing["scorers"] = ["level", "nan", "gradient"]
    run_suite(mixing, tmp_path / "out")
    found = scores_of(tmp_path / "out")
    assert found["slide", "mixed 50/0/50", "level", "close"]["error"] is None
    assert "NaN for" in found["slide", "mixed 50/0/50", "nan", "close"]["error"]
    assert not any(scorer == "gradient" for _, _, scorer, _ in found)  # it reads images: not applicable
    listed = json.loads((tmp_path / "out" / "run.json").read_text())["not_applicable"]
    assert {(e["adapter"], e["scorer"], *e["missing"]) for e in listed} == {
        ("source", "gradient", "gradients", "images"),
        ("slide", "gradient", "gradients", "images"),
    }
    frame = leaderboard([tmp_path / "out"], protocol="mixed 50/0/50").frame
    assert frame[frame["scorer"] == "gradient"]["all_auroc"].isna().all()


def test_a_set_that_cannot_be_read_fails_alone(mixing: dict[str, Any], tmp_path: Path) -> None:
    mixing["ood"].append({"name": "gone", "dataset": "unreadable", "group": "far"})
    run_suite(mixing, tmp_path / "out")
    found = scores_of(tmp_path / "out")
    assert "is damaged" in found["slide", "mixed 50/0/50", "margin", "gone"]["error"]
    assert found["slide", "mixed 50/0/50", "margin", "close"]["error"] is None


def test_a_model_that_does_not_load_leaves_a_record_a_cell(mixing: dict[str, Any], tmp_path: Path) -> None:
    mixing["models"] = [{"name": "network", "params": {"outputs": 2}}]
    result = run_suite(mixing, tmp_path / "out")
    found = scores_of(tmp_path / "out")
    assert len(found) == 2 * 3 * 3
    assert all("2 classes" in record["error"] for record in found.values())
    assert result.failed == result.cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adaptation": {"shares": [[0.5, 0.5, 0.5]]}}, r"shares \[0\.5, 0\.5, 0\.5\] are no mixture"),
        ({"adaptation": {"shares": [[0, 0, 1]]}}, "are no mixture"),
        ({"adaptation": {"shares": [[0.5, 0.5]]}}, "shares"),
        ({"adaptation": {"shifts": ["fog-1"]}}, r"no shift that corrupts named 'fog-1'.*brightness-1"),
        ({"adaptation": {"size": 1}}, "size"),
        ({"shift": [], "adaptation": {"shares": [[0, 0.5, 0.5]]}}, "no .*shift.* corrupts ID test"),
        (
            {"ood": [], "adapters": [{"name": "slide", "protocol": "separate"}]},
            "'separate' needs OOD and scorers",
        ),
        (
            {"scorers": [], "adapters": [{"name": "slide", "protocol": "separate"}]},
            "'separate' needs OOD and scorers",
        ),
    ],
)
def test_mistakes_in_a_suite_are_one_line(
    mixing: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=message) as raised:
        run_suite(mixing | change, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_without_shift_the_default_is_half_id_and_half_ood(mixing: dict[str, Any], tmp_path: Path) -> None:
    mixing["shift"] = []
    del mixing["adaptation"]["shares"]
    run_suite(mixing, tmp_path / "out")
    assert {place[1] for place in scores_of(tmp_path / "out")} == {"mixed 50/0/50"}


def test_a_suite_without_ood_mixes_its_shifts_alone(mixing: dict[str, Any], tmp_path: Path) -> None:
    mixing |= {"ood": [], "scorers": [], "adapters": [{"name": "slide", "protocol": "mixed"}]}
    run_suite(mixing, tmp_path / "out")
    (place,) = {
        (r["protocol"], r["ood"]) for r in read_journal(tmp_path / "out") if r["kind"] == "adaptation"
    }
    assert place == ("mixed", "brightness-1")


def test_a_limited_run_has_short_streams(mixing: dict[str, Any], tmp_path: Path) -> None:
    registry = Registry.load([TOY_PLUGIN])
    suite = plan_suite(mixing | {"adaptation": {"size": 50}}, registry, source="toy.toml").suite
    assert settings(suite.limited(20)).size == 20
    assert settings(suite.limited(None)).size == 50
