"""Intervals against their equations, solved otherwise, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from harness.base.errors import InputError
from harness.statistics import metrics
from harness.statistics.intervals import fpr95_interval, logit_interval, seed_interval

Z = 1.959963984540054  # the normal's 97.5 % quantile
Q95 = 1.6448536269514722  # its 95 % quantile


def normal_cdf(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def test_an_aurocs_interval_is_symmetric_on_the_logit_scale():
    centre, reach = math.log(0.9 / 0.1), Z * 0.02 / (0.9 * 0.1)
    expected = [1 / (1 + math.exp(-(centre + sign * reach))) for sign in (-1, 1)]
    assert logit_interval(0.9, 0.02**2, 100, 100) == pytest.approx(expected, abs=1e-12)


def test_a_huge_variance_gives_all_of_0_to_1():
    assert logit_interval(0.5, 1e9, 2, 2) == (0.0, 1.0)


def newcombe_root(auroc, m, n, bounds, *, z=Z):
    """Solve Newcombe's (2006) equation for method 5 as it is printed."""
    half = (m + n) / 2

    def gap(t):
        spread = 2 * half - 1 - (3 * half - 3) / ((2 - t) * (1 + t))
        return (auroc - t) ** 2 - z**2 * t * (1 - t) / (m * n) * spread

    return brentq(gap, *bounds, xtol=1e-14)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 8), (100, 100), (10_000, 300), (1000, 123.4)])
def test_an_extreme_auroc_has_newcombes_interval(m, n):
    lower = newcombe_root(1.0, m, n, (1e-9, 1 - 1e-9))
    assert logit_interval(1.0, 0.0, m, n) == pytest.approx((lower, 1.0), abs=1e-11)
    assert logit_interval(0.0, 0.0, m, n) == pytest.approx((0.0, 1 - lower), abs=1e-11)


@pytest.mark.parametrize("auroc", [0.5, 0.75])
def test_no_variance_inside_0_to_1_has_newcombes_interval_too(auroc):
    expected = newcombe_root(auroc, 50, 80, (0.0, auroc)), newcombe_root(auroc, 50, 80, (auroc, 1.0))
    assert logit_interval(auroc, 0.0, 50, 80) == pytest.approx(expected, abs=1e-11)


def test_confidence_widens_both_kinds_of_interval():
    z = 2.5758293035489004  # the normal's 99.5 % quantile
    reach = z * 0.01 / 0.25
    assert logit_interval(0.5, 1e-4, 9, 9, 0.99)[1] == pytest.approx(1 / (1 + math.exp(-reach)))
    assert logit_interval(1.0, 0.0, 9, 9, 0.99)[0] == pytest.approx(
        newcombe_root(1.0, 9, 9, (1e-9, 1 - 1e-9), z=z)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.1, 0.1, 5, 5), r"auroc is 1\.1; valid: 0\.\.1"),
        ((math.nan, 0.1, 5, 5), "auroc is nan"),
        ((0.5, -0.1, 5, 5), r"variance is -0\.1; valid: 0 or more"),
        ((0.5, math.inf, 5, 5), "variance is inf"),
        ((0.5, 0.1, 0, 5), "n_id is 0 and n_ood is 5; valid: 1 or more"),
        ((0.5, 0.1, 5, 5, 95), "confidence is 95; valid: between 0 and 1"),
    ],
)
def test_an_interval_of_impossible_numbers_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        logit_interval(*arguments)


def test_the_interval_over_seeds_is_students():
    summary = seed_interval([0.90, 0.92, 0.94, 0.96, 0.98])
    sd = math.sqrt((0.04**2 + 0.02**2) * 2 / 4)
    reach = (
        2.7764451051977987 * sd / math.sqrt(5)
    )  # the 97.5 % quantile of Student's t with 4 degrees of freedom
    assert (summary.mean, summary.sd) == pytest.approx((0.94, sd))
    assert summary.interval == pytest.approx((0.94 - reach, 0.94 + reach))


def test_the_interval_over_seeds_stays_inside_0_to_1():
    assert seed_interval([0.9, 1.0]).interval == (pytest.approx(0.95 - 12.7062047364 * 0.05), 1.0)
    assert seed_interval([0.0, 0.1]).interval == (0.0, pytest.approx(0.05 + 12.7062047364 * 0.05))


def test_one_seed_has_no_interval():
    summary = seed_interval([0.9])
    assert (summary.mean, summary.sd, summary.interval) == (0.9, None, None)


@pytest.mark.parametrize("values", [[], [[0.5, 0.6]], [0.5, math.nan]])
def test_seeds_that_do_not_fit_are_refused(values):
    with pytest.raises(InputError, match="valid: one number for each seed"):
        seed_interval(values)


def wilson(share, count):
    centre, spread = (
        share + Z**2 / (2 * count),
        Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)),
    )
    return (centre - spread) / (1 + Z**2 / count), (centre + spread) / (1 + Z**2 / count)


def test_a_threshold_that_cannot_move_leaves_wilsons_interval():
    ids, oods = np.zeros(500), np.array([0.0] * 30 + [1.0] * 70)
    assert fpr95_interval(ids, oods) == pytest.approx(wilson(0.3, 100), abs=1e-12)


def test_a_share_that_cannot_vary_leaves_the_range_of_the_threshold():
    ids, oods = np.arange(100), np.arange(100_000_000, step=1000) / 1_000_000  # 1000 OOD in every gap of ID
    lower, upper = fpr95_interval(ids, oods)
    # The real ranks of 100 samples at 2.5 % and 97.5 %: I_0.95(k, 101 - k) = 0.975 and 0.025.
    assert metrics.fpr95_id(ids, oods) == pytest.approx(0.94, abs=1e-4)
    assert (lower, upper) == pytest.approx((0.89860, 0.98262), abs=2e-4)


def test_perfect_separation_leaves_wilsons_upper_limit_or_the_threshold():
    assert fpr95_interval(np.zeros(500), np.ones(100)) == pytest.approx((0.0, wilson(0.0, 100)[1]))


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_too_few_positive_samples_leave_the_upper_limit_open(positive):
    scores = {"id": (np.arange(71), np.arange(71, 571)), "ood": (np.arange(500), np.arange(500, 571))}
    assert fpr95_interval(*scores[positive], positive=positive) == (0.0, 1.0)


@pytest.mark.parametrize("positive", ["id", "ood"])
@pytest.mark.parametrize("decimals", [15, 1, 0])
def test_the_interval_holds_the_metric_inside_0_to_1(positive, decimals):
    rng = np.random.default_rng(0)
    metric = {"id": metrics.fpr95_id, "ood": metrics.fpr95_ood}[positive]
    for m, n in ((1, 1), (2, 30), (30, 2), (72, 80), (400, 300)):
        for shift in (-3, 0, 2, 9):
            ids, oods = rng.normal(size=m).round(decimals), rng.normal(shift, size=n).round(decimals)
            lower, upper = fpr95_interval(ids, oods, positive=positive)
            assert 0 <= lower <= metric(ids, oods) <= upper <= 1


def test_the_conventions_mirror_each_other_and_torch_mirrors_numpy():
    rng = np.random.default_rng(1)
    ids, oods = rng.normal(size=300), rng.normal(1, 2, size=200)
    expected = fpr95_interval(ids, oods, positive="ood")
    assert fpr95_interval(-oods, -ids) == expected
    assert fpr95_interval(torch.tensor(ids), torch.tensor(oods), positive="ood") == expected


def test_an_fpr95_interval_of_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="positive is 'both'; valid: 'id', 'ood'"):
        fpr95_interval(np.zeros(3), np.ones(3), positive="both")
    with pytest.raises(InputError, match="confidence is 0; valid: between 0 and 1"):
        fpr95_interval(np.zeros(3), np.ones(3), confidence=0)
    with pytest.raises(InputError, match="id_scores holds 3 NaN of 3"):
        fpr95_interval(np.full(3, np.nan), np.ones(3))


def fpr95_coverage(m, n, shift, *, step=0.0, draws=2000):
    """Count how often intervals hold the true FPR95 of N(0, 1) against N(shift, 1), rounded to steps."""
    rng = np.random.default_rng(5)
    threshold = Q95
    if step:  # the first edge between two rounded values that has 95 % of ID below it
        threshold = (math.ceil(Q95 / step - 0.5) + 0.5) * step
    truth = normal_cdf(threshold - shift)
    covered = 0
    for _ in range(draws):
        ids, oods = rng.normal(size=m), rng.normal(shift, size=n)
        if step:
            ids, oods = np.round(ids / step), np.round(oods / step)
        lower, upper = fpr95_interval(ids, oods)
        covered += lower <= truth <= upper
    return covered / draws


@pytest.mark.parametrize(
    ("m", "n", "shift"),
    [
        (100, 100, 1.0),
        (100, 100, 3.0),
        (200, 200, 0.0),
        (200, 1000, 2.0),
        (1000, 200, 1.0),
        (1000, 1000, 3.0),
    ],
)
def test_fpr95_intervals_of_continuous_scores_cover_the_truth_about_95_times_of_100(m, n, shift):
    assert 0.935 <= fpr95_coverage(m, n, shift) <= 0.985


@pytest.mark.parametrize(
    ("m", "n", "shift", "step"), [(200, 200, 2.0, 0.1), (1000, 1000, 2.0, 0.1), (1000, 1000, 1.0, 0.5)]
)
def test_fpr95_intervals_of_rounded_scores_do_not_fall_short(m, n, shift, step):
    assert fpr95_coverage(m, n, shift, step=step) >= 0.935
