"""The metrics against scikit-learn, the originals' numbers and hand calculation."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from toys import run_suite

from harness.base.errors import InputError
from harness.evaluations.measures import cell_metrics
from harness.reports import board_text as render
from harness.reports.leaderboard import leaderboard
from harness.statistics import metrics
from harness.statistics.intervals import fpr95_interval
from harness.statistics.metrics import METRICS, all_metrics

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "isomax_metrics.json").read_text())
# The same program's detection accuracy of the same scores, at the commit that the golden file names.
ISOMAX_DTACC = {"untied": 0.72, "tied": 0.7071428571428571}

PAIR_FUNCTIONS = [metric.function for metric in METRICS.values()]
EXTREMES = [math.inf, -math.inf, 1e300, -1e300, 5e-324, -5e-324, 0.0, -0.0, 1e-300, 1.0]

any_scores = st.one_of(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=60),
    st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=60),
    st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=60),
    st.builds(lambda value, count: [value] * count, st.sampled_from(EXTREMES), st.integers(1, 60)),
)


def share_of_negatives(is_positive, ranks):
    """Read the false positive rate off scikit-learn's curve, at its first point with 95 % of positives."""
    fpr, tpr, _ = roc_curve(is_positive, ranks, drop_intermediate=False)
    positives = int(is_positive.sum())
    hits = np.rint(tpr * positives).astype(int)
    return fpr[np.argmax(20 * hits >= 19 * positives)]


def detection_accuracy(is_positive, ranks):
    fpr, tpr, _ = roc_curve(is_positive, ranks, drop_intermediate=False)
    return max((tpr + 1 - fpr) / 2)


def area_under_precision_recall(is_positive, ranks):
    precision, recall, _ = precision_recall_curve(is_positive, ranks)
    return auc(recall, precision)


def by_scikit_learn(id_scores, ood_scores):
    """Compute every metric from the ranks, as scikit-learn refuses infinite scores."""
    ranks = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)[1].astype(float)
    is_ood = np.arange(len(ranks)) >= len(id_scores)
    return {
        "auroc": roc_auc_score(is_ood, ranks),
        "fpr95_id": share_of_negatives(~is_ood, -ranks),
        "fpr95_ood": share_of_negatives(is_ood, ranks),
        "tnr95_id": 1 - share_of_negatives(~is_ood, -ranks),
        "dtacc": detection_accuracy(~is_ood, -ranks),
        "aupr_in": area_under_precision_recall(~is_ood, -ranks),
        "aupr_out": area_under_precision_recall(is_ood, ranks),
        "ap_in": average_precision_score(~is_ood, -ranks),
        "ap_out": average_precision_score(is_ood, ranks),
    }


@given(any_scores, any_scores)
def test_every_metric_of_any_scores_is_the_one_of_scikit_learn(id_scores, ood_scores):
    ids, oods = np.array(id_scores), np.array(ood_scores)
    assert all_metrics(ids, oods) == pytest.approx(by_scikit_learn(ids, oods), abs=1e-12)


def rates_at_every_threshold(id_scores, ood_scores):
    """List the exact (TPR, TNR) of accepting what is at most t, for every t at which either may change."""
    accepts = [lambda score, t=t: score <= t for t in {*id_scores, *ood_scores}]
    accepts.append(lambda _: False)
    return [
        (
            Fraction(sum(map(accept, id_scores)), len(id_scores)),
            1 - Fraction(sum(map(accept, ood_scores)), len(ood_scores)),
        )
        for accept in accepts
    ]


def assert_best_of_every_threshold(id_scores, ood_scores):
    rates = rates_at_every_threshold(id_scores, ood_scores)
    ids, oods = np.array(id_scores), np.array(ood_scores)
    # The lowest threshold that accepts enough of ID is the one that rejects most of OOD.
    tnr = max(rejected for accepted, rejected in rates if accepted >= Fraction(19, 20))
    assert metrics.tnr95_id(ids, oods) == pytest.approx(float(tnr), abs=1e-15)
    assert metrics.dtacc(ids, oods) == float(max(map(sum, rates)) / 2)
    assert metrics.dtacc(ids, oods) >= 0.5


@given(any_scores, any_scores)
def test_tnr95_and_detection_accuracy_are_the_best_of_every_threshold(id_scores, ood_scores):
    assert_best_of_every_threshold(id_scores, ood_scores)


@given(any_scores, any_scores)
def test_detection_accuracy_is_the_same_whichever_side_is_positive(id_scores, ood_scores):
    ids, oods = np.array(id_scores), np.array(ood_scores)
    assert metrics.dtacc(ids, oods) == metrics.dtacc(-oods, -ids)


@pytest.mark.parametrize("decimals", [15, 1, 0])
def test_every_metric_of_thousands_of_scores_is_the_one_of_scikit_learn(decimals):
    rng = np.random.default_rng(0)
    ids, oods = rng.normal(size=3000).round(decimals), rng.normal(1, 2, size=2000).round(decimals)
    assert all_metrics(ids, oods) == pytest.approx(by_scikit_learn(ids, oods), abs=1e-12)


@given(any_scores, any_scores)
def test_a_metric_alone_is_the_same_as_among_all(id_scores, ood_scores):
    ids, oods = np.array(id_scores), np.array(ood_scores)
    alone = {name: metric.function(ids, oods) for name, metric in METRICS.items()}
    assert all_metrics(ids, oods) == alone


@given(any_scores, any_scores)
def test_torch_and_numpy_scores_give_the_same_numbers(id_scores, ood_scores):
    ids, oods = np.array(id_scores), np.array(ood_scores)
    assert all_metrics(torch.tensor(ids), torch.tensor(oods)) == all_metrics(ids, oods)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=60),
    st.lists(st.integers(-50, 50), min_size=1, max_size=60),
)
def test_no_metric_changes_under_a_strictly_increasing_map(id_scores, ood_scores):
    ids, oods = np.array(id_scores), np.array(ood_scores)
    assert all_metrics(np.exp(ids / 10), np.exp(oods / 10)) == all_metrics(ids, oods)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_the_originals_example_gives_the_originals_numbers(case):
    ids, oods = originals_scores(case["name"])
    found = all_metrics(-ids, -oods)
    assert found["auroc"] == pytest.approx(case["sklearn_auroc"], abs=1e-14)
    assert found["aupr_in"] == pytest.approx(case["rdl_aupr_in"], abs=1e-14)
    assert found["aupr_out"] == pytest.approx(case["rdl_aupr_out"], abs=1e-14)
    # The original counts every tie as an error.
    ties = sum(float(ood == ids_) for ids_ in ids for ood in oods) / (50 * 70)
    assert found["auroc"] - case["isomax_auroc"] == pytest.approx(ties / 2, abs=ties / 2 + 1e-14)


@pytest.mark.parametrize(("name", "rejected"), [("untied", 31), ("tied", 29)])
def test_the_originals_example_has_the_originals_tnr_but_for_the_step_that_its_walk_stops_short(
    name, rejected
):
    """The original walks down the sorted scores and keeps the first point whose TPR is nearest to 95 %.

    Of 50 ID samples that is the point that first accepts 48, the threshold right above the third lowest:
    whatever OOD lies between the second and the third lowest is not rejected yet. Untied, that is one sample
    of 70. Tied, the third lowest ID is in a group of sixteen, and nothing lies between.
    """
    ids, oods = originals_scores(name)
    golden = next(case["isomax_tnr"] for case in GOLDEN["cases"] if case["name"] == name)
    third = np.sort(ids)[2]  # 48 of 50 is the first share from 95 % on
    skipped = np.sum((oods > np.sort(ids)[1]) & (oods < third))
    assert np.sum(oods < third) == rejected
    assert metrics.tnr95_id(-ids, -oods) == pytest.approx(rejected / 70, abs=1e-14)
    assert metrics.tnr95_id(-ids, -oods) == pytest.approx(golden + skipped / 70, abs=1e-9)
    assert_best_of_every_threshold((-ids).tolist(), (-oods).tolist())


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_the_originals_example_has_the_originals_detection_accuracy(name):
    """Within ties the original's walk takes ID first, through points worth less than the group's first one."""
    ids, oods = originals_scores(name)
    assert metrics.dtacc(-ids, -oods) == pytest.approx(ISOMAX_DTACC[name], abs=1e-9)


def originals_scores(name):
    ids, oods = np.sin(1.7 * np.arange(50)) + 0.8, np.sin(2.3 * np.arange(70) + 1)
    return (np.round(2 * ids) / 2, np.round(2 * oods) / 2) if name == "tied" else (ids, oods)


def test_detection_accuracy_weighs_both_sides_the_same():
    ids, oods = np.zeros(99), np.array([-1.0, 0.0, 1.0, 1.0])
    # All 99 ID are accepted at 0, and two of four OOD rejected: (1 + 1 / 2) / 2, not 101 of 103.
    assert metrics.dtacc(ids, oods) == 3 / 4
    assert metrics.dtacc(oods, ids) == (1 / 4 + 1) / 2


def test_the_interval_of_tnr95_mirrors_that_of_fpr95():
    rng = np.random.default_rng(0)
    ids, oods = torch.tensor(rng.normal(size=300)), torch.tensor(rng.normal(2, 1, size=200))
    found = cell_metrics(ids, oods)["tnr95_id"]
    low, high = fpr95_interval(ids, oods)
    assert found == {"value": 1 - metrics.fpr95_id(ids, oods), "lo": 1 - high, "hi": 1 - low}


def test_a_board_can_be_ordered_by_tnr95(toy_suite, tmp_path):
    folder = run_suite(toy_suite, tmp_path / "out").folder
    board = leaderboard([folder], metric="tnr95_id")
    assert board.frame["all_tnr95_id"].is_monotonic_decreasing
    frame = board.frame
    assert frame["close_tnr95_id"].tolist() == (1 - frame["close_fpr95_id"]).tolist()
    assert frame["close_tnr95_id_lo"].notna().all()
    assert "near TNR95 (ID pos.)" in render.as_markdown(board)


def test_fpr95_of_each_convention_is_the_one_worked_out_by_hand():
    ids = np.arange(1, 21)
    oods = np.array([30, 19.5, 19, 18.5, 5])
    # At 19, 19 of 20 ID are accepted, and with them 5, 18.5 and 19; at 5 all OOD are flagged, and 5..20.
    assert metrics.fpr95_id(ids, oods) == 3 / 5
    assert metrics.fpr95_ood(ids, oods) == 16 / 20


def test_fpr95_takes_a_whole_group_of_ties():
    ids = np.array([0.0] * 18 + [1.0, 1.0])
    oods = np.array([0.0, 1.0, 1.0, 2.0])
    # 18 of 20 is too few, so ID is accepted at 1, with three OOD; OOD is flagged at 0, with every ID.
    assert metrics.fpr95_id(ids, oods) == 3 / 4
    assert metrics.fpr95_ood(ids, oods) == 1.0


@pytest.mark.parametrize("count", [*range(1, 200), 12_340, 99_980])
def test_the_95_percent_are_counted_in_whole_numbers(count):
    needed = math.ceil(Fraction(19, 20) * count)
    ids = np.arange(count)
    # The threshold is ID sample number `needed`, and OOD samples lie half a step above each ID sample.
    assert metrics.fpr95_id(ids, ids + 0.5) == pytest.approx((needed - 1) / count, abs=1e-15)
    assert metrics.fpr95_ood(ids - 0.5, ids) == pytest.approx((needed - 1) / count, abs=1e-15)


def test_perfect_reversed_and_constant_scores_have_their_known_values():
    low, high, constant = np.zeros(30), np.ones(10), np.zeros(10)
    perfect = all_metrics(low, high)
    assert perfect == {name: float(metric.higher_is_better) for name, metric in METRICS.items()}
    assert all_metrics(high, low)["auroc"] == 0.0
    assert all_metrics(high, low)["dtacc"] == 0.5
    assert all_metrics(low, constant) == pytest.approx(
        {
            "auroc": 0.5,
            "fpr95_id": 1.0,
            "fpr95_ood": 1.0,
            "tnr95_id": 0.0,
            "dtacc": 0.5,
            "aupr_in": (1 + 0.75) / 2,  # the straight line from (0, 1) to (1, 30 / 40)
            "aupr_out": (1 + 0.25) / 2,
            "ap_in": 0.75,
            "ap_out": 0.25,
        }
    )


def test_infinite_scores_are_ordered():
    assert metrics.auroc(np.array([-np.inf, 0.0]), np.array([np.inf, 0.0])) == (2 + 1 + 0.5) / 4


@pytest.mark.parametrize(
    "convert",
    [
        lambda scores: scores.astype(np.float32),
        lambda scores: scores.astype(np.float16),
        lambda scores: scores.astype(np.int8),
        lambda scores: scores.astype(np.uint16),
        lambda scores: scores.astype(">f8"),
        lambda scores: scores[::-1],
        lambda scores: torch.tensor(scores, dtype=torch.bfloat16),
        lambda scores: torch.tensor(scores, requires_grad=True),
        lambda scores: torch.tensor(scores).int(),
    ],
)
def test_integers_and_floats_of_any_width_order_and_origin_are_read(convert):
    ids, oods = np.arange(8.0), np.arange(4.0, 16.0)
    # OOD 8..15 lie above all eight ID; 4, 5, 6 and 7 above 4, 5, 6 and 7 of them and level with one.
    assert metrics.auroc(convert(ids), convert(oods)) == (8 * 8 + 4.5 + 5.5 + 6.5 + 7.5) / 96


def test_read_only_scores_are_read_without_a_warning():
    ids, oods = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    ids.flags.writeable = False
    assert metrics.auroc(ids, oods) == 3.5 / 4


def test_reading_scores_leaves_them_as_they_were():
    ids, oods = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    all_metrics(ids, oods)
    assert ids.tolist() == [3.0, 1.0, 2.0]
    assert oods.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("function", PAIR_FUNCTIONS)
def test_nan_is_refused_with_its_number_and_the_argument(function):
    with pytest.raises(InputError, match=r"ood_scores holds 2 NaN of 3 values"):
        function(np.zeros(4), np.array([np.nan, 0.0, np.nan]))
    with pytest.raises(InputError, match=r"id_scores holds 1 NaN of 1 values"):
        function(torch.tensor([torch.nan]), torch.zeros(2))


@pytest.mark.parametrize("function", PAIR_FUNCTIONS)
def test_scores_that_are_empty_or_not_a_list_are_refused(function):
    with pytest.raises(InputError, match="ood_scores is empty"):
        function(np.zeros(4), np.zeros(0))
    with pytest.raises(InputError, match=r"id_scores has shape \(2, 2\); valid: \(N,\)"):
        function(np.zeros((2, 2)), np.zeros(4))
    with pytest.raises(InputError, match=r"ood_scores has shape \(\)"):
        function(np.zeros(4), np.array(1.0))


@pytest.mark.parametrize("scores", [np.array(["a"]), np.array([1j]), torch.tensor([1j])])
def test_scores_that_are_not_real_numbers_are_refused(scores):
    with pytest.raises(InputError, match=r"ood_scores holds .+; valid: integers and floats"):
        metrics.auroc(np.zeros(4), scores)


def test_scores_on_two_devices_are_refused():
    with pytest.raises(InputError, match="id_scores is on cpu and ood_scores is on meta: move them to one"):
        metrics.auroc(np.zeros(4), torch.zeros(3, device="meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_numbers_of_the_cpu():
    rng = np.random.default_rng(0)
    ids, oods = torch.tensor(rng.normal(size=999).round(1)), torch.tensor(rng.normal(1, size=500).round(1))
    assert all_metrics(ids.cuda(), oods.cuda()) == pytest.approx(all_metrics(ids, oods), abs=1e-12)


def test_a_header_whose_metric_has_a_positive_class_names_the_positive_class():
    headers = {name: metric.header for name, metric in METRICS.items()}
    assert headers["fpr95_id"] == "FPR95 (ID pos.)"
    assert headers["fpr95_ood"] == "FPR95 (OOD pos.)"
    assert headers["tnr95_id"] == "TNR95 (ID pos.)"
    assert headers["aupr_in"] == "AUPR-in"
    assert headers["aupr_out"] == "AUPR-out"
    assert len(set(headers.values())) == len(headers)


def test_accuracy_is_the_share_of_labels_with_the_largest_logit():
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [-1.0, -2.0]])
    assert metrics.accuracy(logits, np.array([0, 1, 1, 0])) == 3 / 4
    assert metrics.accuracy(torch.tensor(logits).half(), torch.tensor([1, 0, 1, 1])) == 0.0


def two_class_logits(confidences):
    odds = np.array(confidences) / (1 - np.array(confidences))
    return np.stack([np.log(odds), np.zeros(len(odds))], axis=1)


def test_ece_weighs_each_bins_gap_by_its_samples():
    logits = two_class_logits([0.85, 0.85, 0.62, 0.78])
    labels = np.array([0, 1, 0, 0])
    # Bin (0.8, 1]: accuracy 1/2 against 0.85. Bin (0.6, 0.8]: 1 against 0.70.
    assert metrics.ece(logits, labels, bins=5) == pytest.approx(0.5 * 0.35 + 0.5 * 0.30)
    assert metrics.ece(logits, labels, bins=1) == pytest.approx(abs(0.75 - (0.85 + 0.85 + 0.62 + 0.78) / 4))


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin():
    logits = two_class_logits([0.9, 0.5])
    # Right at 0.5 and wrong at 0.9: apart, gaps of 0.5 and 0.9; in one bin, a gap of 0.4 for both.
    assert metrics.ece(logits, np.array([1, int(logits[1].argmax())]), bins=2) == pytest.approx(0.7)


def test_ece_of_many_rows_is_that_of_a_loop_over_samples():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(9000, 7)).astype(np.float32) * 3, rng.integers(0, 7, size=9000)
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    gaps = [0.0] * 15
    for row, label in zip(shares, labels, strict=True):
        gaps[math.ceil(row.max() * 15) - 1] += float(row.argmax() == label) - row.max()
    assert metrics.ece(logits, labels) == pytest.approx(sum(map(abs, gaps)) / 9000, abs=1e-9)


def test_certain_and_right_predictions_are_calibrated():
    logits = np.array([[-np.inf, 0.0], [1000.0, 0.0]])
    assert metrics.ece(logits, np.array([1, 0])) == 0.0


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros(3), np.zeros(3, dtype=int), r"logits has shape \(3,\); valid: \(N, C\)"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), r"logits has shape \(0, 2\)"),
        (np.zeros((3, 2)), np.zeros(2, dtype=int), r"labels has shape \(2,\); valid: \(3,\)"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), r"labels must be integers in 0\.\.1"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), r"labels must be integers in 0\.\.1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), r"labels must be integers in 0\.\.1"),
        (np.full((3, 2), np.nan), np.zeros(3, dtype=int), "logits holds 6 NaN of 6 values"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.long, device="meta"), "labels is on meta"),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_refused(logits, labels, message):
    for function in (metrics.accuracy, metrics.ece):
        with pytest.raises(InputError, match=message):
            function(logits, labels)


def test_ece_refuses_infinite_confidence_and_no_bins():
    with pytest.raises(InputError, match=r"softmax\(logits\) holds 1 NaN of 1 values"):
        metrics.ece(np.array([[np.inf, 0.0]]), np.array([0]))
    with pytest.raises(InputError, match="bins is 0; valid: 1 or more"):
        metrics.ece(np.zeros((1, 2)), np.array([0]), bins=0)


def test_importing_metrics_and_statistics_imports_no_torch():
    program = (
        "import sys, harness.statistics.intervals\n"
        "from harness.statistics import holm, paired_p_values, rank_ranges\n"
        "rank_ranges([0.7, 0.8], paired_p_values([0.7, 0.8], [[1e-4, 0], [0, 1e-4]]))\n"
        "harness.statistics.intervals.logit_interval(0.7, 1e-4, 100, 100)\n"
        "print('torch' in sys.modules, 'scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
