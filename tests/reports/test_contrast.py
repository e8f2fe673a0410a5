"""A contrast pairs two (model, scorer) by seed as scipy does, decides only what the seeds decide, and names gaps."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from toys import run_suite

from harness import cli
from harness.base.errors import InputError, RecordsError, UnknownNameError
from harness.reports import text
from harness.reports.contrast import Contrast, contrast, contrast_text, legend

SETS = {"close": "near", "closer": "near", "bright": "far", "fog": "csid"}
A, B = "plain-1.0/first", "iso.max-plus/second(k=2)"
Values = dict[
    int, dict[str, float]
]  # seed: set: AUROC; FPR95 is 1 - AUROC² here, and (1 - AUROC)² OOD positive


def record(
    kind: str, model: str, seed: int, scorer: str | None, ood: str | None, **fields: Any
) -> dict[str, Any]:
    place = {"adapter": "source", "protocol": "separate", "suite": "hand", "suite_digest": "d" * 32}
    return {
        **place,
        "kind": kind,
        "cell_id": f"{model} {seed} {scorer} {ood}",
        "model": model,
        "scorer": scorer,
        "id": "digits",
        "ood": ood,
        "group": SETS.get(ood or "", "id"),
        "seeds": {"model": seed},
        "data": {"id": None, "ood": None},
        "metrics": {},
        "scores": None,
        "error": None,
        **fields,
    }


def metric(value: float) -> dict[str, float | None]:
    return {"value": value, "lo": None, "hi": None}


def cells(pair: str, values: Values) -> list[dict[str, Any]]:
    model, scorer = pair.split("/")
    return [
        record("score", model, seed, scorer, name, metrics={
            "auroc": metric(auroc), "fpr95_id": metric(1 - auroc**2), "fpr95_ood": metric((1 - auroc) ** 2),
        })
        for seed, of_sets in values.items() for name, auroc in of_sets.items()
    ]  # fmt: skip


def accuracies(model: str, by_seed: dict[int, float]) -> list[dict[str, Any]]:
    return [
        record("model", model, seed, None, None, metrics={"accuracy": metric(value)})
        for seed, value in by_seed.items()
    ]


def write(folder: Path, records: list[dict[str, Any]], **manifest: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "run.json").write_text(json.dumps({"sets": list(SETS), "fpr": "id", **manifest}))
    return folder


def drawn(rng: np.random.Generator, seeds: range | list[int], mean: float, spread: float = 0.01) -> Values:
    return {seed: {name: float(rng.normal(mean, spread)) for name in SETS} for seed in seeds}


@pytest.fixture
def values() -> dict[str, Values]:
    rng = np.random.default_rng(7)
    return {A: drawn(rng, range(6), 0.80), B: drawn(rng, range(6), 0.82)}


def run_of(folder: Path, values: dict[str, Values], **manifest: Any) -> Path:
    records = [r for pair, of_pair in values.items() for r in cells(pair, of_pair)]
    records += accuracies("plain-1.0", {seed: 0.930 + 0.001 * seed for seed in values[A]})
    records += accuracies("iso.max-plus", {seed: 0.931 + 0.0012 * seed for seed in values[B]})
    return write(folder, records, **manifest)


def group_mean(of_sets: dict[str, float], group: str) -> float:
    if group == "all":
        return (group_mean(of_sets, "near") + group_mean(of_sets, "far")) / 2
    return float(np.mean([value for name, value in of_sets.items() if SETS[name] == group]))


def by_name(found: Contrast, metric_name: str = "auroc") -> dict[str, dict[str, Any]]:
    return {row["on"]: row for row in found.rows if row["metric"] == metric_name}


def assert_paired(row: dict[str, Any], a: list[float], b: list[float]) -> None:
    test = ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    assert row["a"] == pytest.approx(np.mean(a), abs=1e-12)
    assert row["b"] == pytest.approx(np.mean(b), abs=1e-12)
    assert row["difference"] == pytest.approx(np.mean(b) - np.mean(a), abs=1e-12)
    assert row["p"] == pytest.approx(test.pvalue, abs=1e-9)
    assert (row["lo"], row["hi"]) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(
    ("metric_name", "of_auroc"),
    [("auroc", lambda v: v), ("fpr95_id", lambda v: 1 - v**2), ("fpr95_ood", lambda v: (1 - v) ** 2)],
)
def test_every_row_is_scipys_paired_t_test(
    metric_name: str, of_auroc: Any, values: dict[str, Values], tmp_path: Path
) -> None:
    convention = "ood" if metric_name == "fpr95_ood" else "id"
    rows = by_name(contrast(run_of(tmp_path / "run", values, fpr=convention), A, B), metric_name)
    assert list(rows) == ["near", "far", "all", "csid", *SETS]
    for name, row in rows.items():
        sides = [
            [of_auroc(of_sets[name]) for of_sets in values[pair].values()] if name in SETS
            else [group_mean({n: of_auroc(v) for n, v in of_sets.items()}, name) for of_sets in values[pair].values()]
            for pair in (A, B)
        ]  # fmt: skip
        assert_paired(row, *sides)
        assert row["level"] == ("set" if name in SETS else "group")


def test_the_sets_are_adjusted_over_the_sets_and_the_groups_are_not(
    values: dict[str, Values], tmp_path: Path
) -> None:
    rows = by_name(contrast(run_of(tmp_path / "run", values), A, B))
    raw = sorted((rows[name]["p"], name) for name in SETS)
    adjusted = 0.0
    for place, (p_value, name) in enumerate(raw):
        adjusted = max(adjusted, min(1.0, (len(SETS) - place) * p_value))  # Holm's step-down
        assert rows[name]["p_holm"] == pytest.approx(adjusted, abs=1e-12)
    assert all(math.isnan(rows[group]["p_holm"]) for group in ("near", "far", "all", "csid"))


def test_the_better_one_is_named_whichever_is_called_b(values: dict[str, Values], tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", values)
    sides = [[group_mean(of_sets, "all") for of_sets in values[pair].values()] for pair in (A, B)]
    assert ttest_rel(*sides).pvalue < 0.05
    assert contrast(folder, A, B).verdict == "B is better"
    assert contrast(folder, B, A).verdict == "A is better"


def test_a_difference_that_the_seeds_do_not_decide_is_undecided(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    alike = {A: drawn(rng, range(6), 0.8), B: drawn(rng, range(6), 0.8)}
    sides = [[group_mean(of_sets, "all") for of_sets in alike[pair].values()] for pair in (A, B)]
    assert ttest_rel(*sides).pvalue > 0.05
    assert contrast(run_of(tmp_path / "run", alike), A, B).verdict == "undecided"


def test_csid_is_shown_and_never_decides(values: dict[str, Values], tmp_path: Path) -> None:
    for of_sets in values[B].values():
        of_sets["fog"] = 0.1
    found = contrast(run_of(tmp_path / "run", values), A, B)
    assert by_name(found)["csid"]["p"] < 1e-6
    assert found.verdict == "B is better"


def test_a_suite_of_shifted_sets_alone_decides_nothing(values: dict[str, Values], tmp_path: Path) -> None:
    shifted = {p: {seed: {"fog": of["fog"]} for seed, of in v.items()} for p, v in values.items()}
    found = contrast(run_of(tmp_path / "run", shifted), A, B)
    assert list(by_name(found)) == ["csid", "fog"]
    assert found.verdict == "undecided"


def with_accuracies(folder: Path, values: dict[str, Values], a: list[float], b: list[float]) -> Contrast:
    records = [r for pair, of_pair in values.items() for r in cells(pair, of_pair)]
    records += accuracies("plain-1.0", dict(enumerate(a))) + accuracies("iso.max-plus", dict(enumerate(b)))
    return contrast(write(folder, records), A, B)


def test_accuracies_whose_difference_lies_within_half_a_point_are_equal(
    values: dict[str, Values], tmp_path: Path
) -> None:
    a = [0.931, 0.933, 0.930, 0.932, 0.934, 0.931]
    b = [0.933, 0.934, 0.932, 0.934, 0.935, 0.934]
    interval = ttest_rel(b, a).confidence_interval(0.95)
    assert interval.low > 0  # they differ, and by too little to matter
    assert interval.high < 0.005
    found = with_accuracies(tmp_path / "run", values, a, b)
    assert_paired(by_name(found, "id_accuracy")["id"], a, b)
    assert found.accuracy_verdict == "equal within ±0.5 points"


def test_accuracies_whose_interval_reaches_beyond_half_a_point_are_not_shown_equal(
    values: dict[str, Values], tmp_path: Path
) -> None:
    a = [0.931, 0.933, 0.930, 0.932, 0.934, 0.931]
    b = [0.937, 0.925, 0.936, 0.928, 0.940, 0.926]
    test = ttest_rel(b, a)
    assert abs(np.mean(b) - np.mean(a)) < 0.001  # the means are near each other
    assert test.pvalue > 0.5  # and nothing says that they differ
    assert test.confidence_interval(0.95).high > 0.005
    assert with_accuracies(tmp_path / "run", values, a, b).accuracy_verdict == "not shown equal"
    worse = [value - 0.02 for value in a]
    assert with_accuracies(tmp_path / "run", values, a, worse).accuracy_verdict == "not shown equal"


def test_an_accuracy_that_was_not_measured_is_not_shown_equal(
    values: dict[str, Values], tmp_path: Path
) -> None:
    found = with_accuracies(tmp_path / "run", values, [0.9] * 6, [0.9] * 5)
    assert math.isnan(by_name(found, "id_accuracy")["id"]["difference"])
    assert found.accuracy_verdict == "not shown equal"
    assert "ID accuracy: A 90.00, B –, B − A –, p –: not shown equal." in legend(found)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_than_five_seeds_have_means_and_decide_nothing(
    count: int, values: dict[str, Values], tmp_path: Path
) -> None:
    few = {pair: {seed: of_pair[seed] for seed in range(count)} for pair, of_pair in values.items()}
    found = contrast(run_of(tmp_path / "run", few), A, B)
    assert found.frame[["lo", "hi", "p", "p_holm"]].isna().all(axis=None)
    assert found.frame[["a", "b", "difference"]].notna().all(axis=None)
    assert (found.verdict, found.accuracy_verdict) == ("undecided", "not shown equal")
    assert "fewer than 5 seeds decide nothing" in text.as_markdown(contrast_text(found))


def test_only_the_seeds_that_both_have_count_and_the_others_are_named(
    values: dict[str, Values], tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    values[A] |= drawn(rng, [8, 9], 0.1)
    values[B] |= drawn(rng, [7], 0.1)
    found = contrast(run_of(tmp_path / "run", values), A, B)
    assert found.seeds == (0, 1, 2, 3, 4, 5)
    assert found.left_out == {"a": (8, 9), "b": (7,)}
    a, b = ([values[pair][seed]["bright"] for seed in range(6)] for pair in (A, B))
    assert_paired(by_name(found)["bright"], a, b)
    line = "Seeds that both have: 6 (0, 1, 2, 3, 4, 5). Left out: seeds 8, 9 of A and 7 of B."
    assert line in legend(found)


def test_models_without_a_common_seed_are_refused(values: dict[str, Values], tmp_path: Path) -> None:
    values[B] = {seed + 6: of_sets for seed, of_sets in values[B].items() if seed < 2}
    with pytest.raises(
        InputError, match=r"no seed in common: plain-1\.0/first has 0, 1, .* and .* has 6, 7\."
    ):
        contrast(run_of(tmp_path / "run", values), A, B)


def test_two_scorers_of_one_model_are_compared_and_its_accuracy_is_the_same(
    values: dict[str, Values], tmp_path: Path
) -> None:
    values["plain-1.0/third"] = {s: {n: v + 0.05 for n, v in of.items()} for s, of in values[A].items()}
    found = contrast(run_of(tmp_path / "run", values), A, "plain-1.0/third")
    assert found.verdict == "B is better"
    assert by_name(found, "id_accuracy")["id"]["difference"] == 0
    assert found.accuracy_verdict == "one model, so the same"


def test_two_folders_are_read_as_one(values: dict[str, Values], tmp_path: Path) -> None:
    whole = contrast(run_of(tmp_path / "run", values), A, B)
    parts = [write(tmp_path / name, cells(pair, values[pair])) for name, pair in (("one", A), ("two", B))]
    found = contrast(parts, A, B)
    pd.testing.assert_frame_equal(found.frame.iloc[:-1], whole.frame.iloc[:-1])  # all but the accuracy
    assert found.verdict == whole.verdict


def test_cells_that_a_side_lacks_are_named_with_their_errors(
    values: dict[str, Values], tmp_path: Path
) -> None:
    records = [r for pair, of_pair in values.items() for r in cells(pair, of_pair)]
    broken = next(r for r in records if r["cell_id"] == "iso.max-plus 3 second(k=2) bright")
    broken |= {"metrics": {}, "error": "ZeroDivisionError: by design"}
    absent = next(r for r in records if r["cell_id"] == "iso.max-plus 4 second(k=2) close")
    records.remove(absent)
    with pytest.raises(InputError) as caught:
        contrast(write(tmp_path / "run", records), A, B)
    assert str(caught.value) == (
        "iso.max-plus/second(k=2) lacks 2 cells: close, seed 4 (not measured); "
        "bright, seed 3 (ZeroDivisionError: by design). Run the suite again: only these are measured"
    )


def test_a_gap_at_a_seed_that_the_other_lacks_is_no_gap(values: dict[str, Values], tmp_path: Path) -> None:
    values[A][6] = {"close": 0.5}
    assert contrast(run_of(tmp_path / "run", values), A, B).left_out["a"] == (6,)


def test_of_many_gaps_the_first_are_named_and_the_others_counted(
    values: dict[str, Values], tmp_path: Path
) -> None:
    values[A] = {seed: {"close": of_sets["close"]} for seed, of_sets in values[A].items()}
    with pytest.raises(
        InputError, match=r"lacks 18 cells: closer, seed 0 \(not measured\); .*; and 13 more\."
    ):
        contrast(run_of(tmp_path / "run", values), A, B)


def test_a_scorer_that_does_not_apply_is_refused(values: dict[str, Values], tmp_path: Path) -> None:
    absent = {"model": "plain-1.0", "adapter": "source", "protocol": "separate", "scorer": "linear-only"}
    folder = run_of(tmp_path / "run", values, not_applicable=[absent])
    with pytest.raises(InputError, match=r"plain-1\.0/linear-only does not apply: the model lacks a need"):
        contrast(folder, "plain-1.0/linear-only", B)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("first", B, "'first' names no pair; valid: MODEL/SCORER. Models: iso.max-plus, plain-1.0"),
        ("plain-1.1/first", B, "no model named 'plain-1.1'. Did you mean 'plain-1.0'? Measured:"),
        (A, "iso.max-plus/second", "named 'second'. Did you mean 'second(k=2)'? Measured: second(k=2)"),
        (A, A, "A and B are both 'plain-1.0/first'. Name two that differ"),
    ],
)
def test_a_name_that_is_not_among_the_records_is_refused_with_the_nearest(
    a: str, b: str, message: str, values: dict[str, Values], tmp_path: Path
) -> None:
    with pytest.raises((InputError, UnknownNameError)) as caught:
        contrast(run_of(tmp_path / "run", values), a, b)
    assert message in str(caught.value)


def test_labels_that_hold_a_slash_are_found(values: dict[str, Values], tmp_path: Path) -> None:
    records = [r for pair, of_pair in values.items() for r in cells(pair, of_pair)]
    for r in records:
        if r["model"] == "plain-1.0":
            r |= {"model": "a/b", "scorer": "knn(bank=c/d)"}
    assert contrast(write(tmp_path / "run", records), "a/b/knn(bank=c/d)", B).verdict == "B is better"


def test_a_folder_without_records_is_refused_as_by_the_leaderboard(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="is no run's folder"):
        contrast(tmp_path, A, B)


def test_every_format_tells_the_same_numbers(values: dict[str, Values], tmp_path: Path) -> None:
    found = contrast(run_of(tmp_path / "run", values), A, B)
    rows = by_name(found)
    primary = rows["all"]
    shown = f"{100 * primary['difference']:+.2f} [{100 * primary['lo']:+.2f}, {100 * primary['hi']:+.2f}]"

    listed = list(csv.DictReader(io.StringIO(text.as_csv(contrast_text(found)))))
    assert float(listed[2]["difference"]) == primary["difference"]
    assert [row["metric"] for row in listed].count("fpr95_id") == 8
    as_json = json.loads(text.as_json(contrast_text(found)))
    assert as_json["rows"][2]["p"] == primary["p"]
    assert as_json["rows"][2]["p_holm"] is None
    assert as_json["verdict"] == "B is better"
    assert as_json["seeds"] == [0, 1, 2, 3, 4, 5]

    header, _, *lines = text.as_markdown(contrast_text(found)).splitlines()
    assert "| AUROC B − A | AUROC p | FPR95 (ID pos.) A |" in header
    assert lines[2].startswith(f"| all | {100 * primary['a']:.2f} | {100 * primary['b']:.2f} | {shown} | ")
    assert f"| {rows['fog']['p_holm']:.3f} | " in next(line for line in lines if line.startswith("| fog "))
    assert any("Holm-adjusted over the sets" in line for line in lines)
    assert lines[-1] == "- Verdict, by AUROC on all at the 5 % level: B is better."


def test_the_ood_positive_convention_is_named_in_the_headers(
    values: dict[str, Values], tmp_path: Path
) -> None:
    found = contrast(run_of(tmp_path / "run", values, fpr="ood"), A, B)
    assert "FPR95 (OOD pos.) B − A" in text.as_markdown(contrast_text(found))
    assert "fpr95_id" not in set(found.frame["metric"])


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["ood-harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
        raise SystemExit(0)
    return int(exit_.value.code or 0)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_the_command_prints_every_format(
    form: str,
    values: dict[str, Values],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = run_of(tmp_path / "run", values)
    assert call("contrast", folder, A, B, "--format", form, monkeypatch=monkeypatch) == 0
    output = capfd.readouterr().out
    assert "closer" in output
    assert form == "csv" or "B is better" in output
    assert call("contrast", folder, folder, A, B, "--format", form, monkeypatch=monkeypatch) == 0
    assert capfd.readouterr().out == output


def test_the_command_refuses_a_bad_name_in_one_line(
    values: dict[str, Values],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = run_of(tmp_path / "run", values)
    assert call("contrast", folder, A, "iso.max-plus/secnd", monkeypatch=monkeypatch) == 2
    error = capfd.readouterr().err
    assert "no scorer of iso.max-plus named 'secnd'" in error
    assert len(error.strip().splitlines()) == 1


def test_a_real_run_of_the_harness_is_contrasted(toy_suite: dict[str, Any], tmp_path: Path) -> None:
    toy_suite["models"] = [{"name": "network", "seeds": [0, 1, 2, 3, 4]}]
    toy_suite["scorers"] = ["margin", "level"]
    folder = run_suite(toy_suite, tmp_path / "out").folder
    found = contrast(folder, "network/margin", "network/level")
    lines = (folder / "records.jsonl").read_text().splitlines()
    scores = [r for r in map(json.loads, lines) if r["kind"] == "score" and r["ood"] == "close"]
    a, b = (
        [r["metrics"]["auroc"]["value"] for r in scores if r["scorer"] == name]
        for name in ("margin", "level")
    )
    row = by_name(found)["close"]
    assert (row["a"], row["b"]) == pytest.approx((np.mean(a), np.mean(b)), abs=1e-12)
    assert found.seeds == (0, 1, 2, 3, 4)
