"""DeLong's covariance, means over OOD sets, tests and ranks, against oracles, hand and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.statistics import metrics
from harness.statistics.inference import (
    MeanAccumulator,
    Placements,
    holm,
    paired_p_values,
    paired_t_p_values,
    placements,
    rank_ranges,
    weighted_mean,
)
from harness.statistics.intervals import logit_interval

DRAWS, DRAWS_AT_ONCE = 2000, 250
SHIFTS = (0.6, 1.0, 1.5, 2.2)  # of four OOD sets

tied_scores = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=25)


def normal_cdf(x):
    return math.erfc(-x / math.sqrt(2)) / 2


def true_auroc(shift):
    """Give P(ood > id) for ID ~ N(0, 1) and OOD ~ N(shift, 1)."""
    return normal_cdf(shift / math.sqrt(2))


def pairwise(id_scores, ood_scores):
    """Compare every pair: 1 where OOD is above, ½ where level; (S, m, n)."""
    ids, oods = id_scores[:, :, None], ood_scores[:, None, :]
    return (oods > ids) + (oods == ids) / 2


def delong_by_pairs(id_scores, ood_scores):
    """DeLong's S10 / m + S01 / n from all m n pairs, one entry at a time."""
    wins = pairwise(id_scores, ood_scores)
    count, m, n = wins.shape
    v10, v01, means = wins.mean(axis=2), wins.mean(axis=1), wins.mean(axis=(1, 2))
    covariance = np.empty((count, count))
    for r in range(count):
        for s in range(count):
            s10 = ((v10[r] - means[r]) * (v10[s] - means[s])).sum() / (m - 1)
            s01 = ((v01[r] - means[r]) * (v01[s] - means[s])).sum() / (n - 1)
            covariance[r, s] = s10 / m + s01 / n
    return covariance


def three_scorers(seed, *, decimals=15, m=40, n=30):
    rng = np.random.default_rng(seed)
    ids = rng.normal(size=m) + rng.normal(size=(3, m)) * [[0.2], [0.5], [1.0]]
    oods = rng.normal(1, size=n) + rng.normal(size=(3, n)) * [[0.2], [0.5], [1.0]]
    return ids.round(decimals), oods.round(decimals)


@pytest.mark.parametrize("decimals", [15, 1, 0])
def test_placements_and_their_covariance_are_those_of_all_pairs(decimals):
    ids, oods = three_scorers(0, decimals=decimals)
    wins = pairwise(ids, oods)
    found = placements(ids, oods)
    assert found.auroc == pytest.approx(wins.mean(axis=(1, 2)), abs=1e-14)
    assert found.v10.numpy() == pytest.approx(wins.mean(axis=2), abs=1e-14)
    assert found.v01.numpy() == pytest.approx(wins.mean(axis=1), abs=1e-14)
    assert found.covariance() == pytest.approx(delong_by_pairs(ids, oods), rel=1e-10, abs=1e-16)


@given(tied_scores, tied_scores)
def test_the_variance_of_tied_scores_is_that_of_all_pairs(id_scores, ood_scores):
    ids, oods = np.array([id_scores]), np.array([ood_scores])
    found = placements(ids[0], oods[0])
    assert found.covariance() == pytest.approx(delong_by_pairs(ids, oods), abs=1e-14)
    assert found.auroc == pytest.approx(pairwise(ids, oods).mean(axis=(1, 2)), abs=1e-14)


def test_the_auroc_of_placements_is_the_metrics_own_to_the_last_bit():
    ids, oods = three_scorers(1, decimals=1, m=333, n=77)
    expected = [metrics.auroc(*pair) for pair in zip(ids, oods, strict=True)]
    assert placements(ids, oods).auroc.tolist() == expected


def test_torch_and_numpy_scores_give_the_same_placements():
    ids, oods = three_scorers(2)
    found, expected = placements(torch.tensor(ids), torch.tensor(oods)), placements(ids, oods)
    assert torch.equal(found.v10, expected.v10)
    assert torch.equal(found.v01, expected.v01)


def test_placements_do_not_change_under_a_strictly_increasing_map():
    ids, oods = three_scorers(3, decimals=1)
    found, expected = placements(np.exp(ids), np.exp(oods)), placements(ids, oods)
    assert torch.equal(found.v10, expected.v10)
    assert torch.equal(found.v01, expected.v01)


def test_a_perfect_and_a_constant_scorer_have_no_variance_at_all():
    ids, oods = np.zeros((2, 7)), np.array([[1.0] * 9, [0.0] * 9])
    found = placements(ids, oods)
    assert found.auroc.tolist() == [1.0, 0.5]
    assert not found.covariance().any()
    thirds = weighted_mean([found] * 3, [0.1, 0.2, 0.4])
    assert thirds.auroc.tolist() == [1.0, 0.5]
    assert not thirds.covariance.any()


@pytest.mark.parametrize(
    ("ids", "oods", "message"),
    [
        (np.zeros((2, 4)), np.zeros((3, 4)), r"id_scores has shape \(2, 4\) and ood_scores \(3, 4\)"),
        (np.zeros((2, 4)), np.zeros(4), r"id_scores has shape \(2, 4\) and ood_scores \(4,\)"),
        (np.zeros((2, 2, 2)), np.zeros(4), r"id_scores has shape \(2, 2, 2\); valid: \(N,\) or \(S, N\)"),
        (np.zeros((2, 0)), np.zeros((2, 4)), "id_scores is empty"),
        (np.array([[0.0, np.nan]]), np.zeros((1, 4)), "id_scores holds 1 NaN of 2 values"),
    ],
)
def test_placements_of_scores_that_do_not_fit_are_refused(ids, oods, message):
    with pytest.raises(InputError, match=message):
        placements(ids, oods)


def test_a_covariance_needs_two_samples_of_each_side():
    with pytest.raises(InputError, match="1 OOD sample; a variance needs 2 or more"):
        placements(np.arange(5), np.ones(1)).covariance()
    with pytest.raises(InputError, match="1 ID sample; a variance needs 2 or more"):
        placements(np.ones(1), np.arange(5)).covariance()


def three_sets():
    """Three OOD sets of different sizes for three scorers, whose ID samples are the same."""
    ids, _ = three_scorers(4, decimals=1)
    return ids, [three_scorers(seed, decimals=1, n=n)[1] for seed, n in ((5, 20), (6, 31), (7, 50))]


def test_the_covariance_of_a_mean_is_its_formula_over_all_pairs():
    ids, sets = three_sets()
    weights = np.array([0.5, 0.2, 0.3])
    wins = [pairwise(ids, oods) for oods in sets]
    mixed = sum(w * one.mean(axis=2) for w, one in zip(weights, wins, strict=True))  # (S, m)
    expected = np.cov(mixed) / ids.shape[1]
    for w, one in zip(weights, wins, strict=True):
        expected = expected + w**2 * np.cov(one.mean(axis=1)) / one.shape[2]
    found = weighted_mean([placements(ids, oods) for oods in sets], 7 * weights)
    assert found.auroc == pytest.approx(mixed.mean(axis=1), abs=1e-14)
    assert found.covariance == pytest.approx(expected, rel=1e-10)
    assert found.n_id == 40
    assert found.n_ood_effective == pytest.approx(1 / (0.25 / 20 + 0.04 / 31 + 0.09 / 50))


def test_the_mean_of_one_set_is_the_set():
    ids, sets = three_sets()
    found = weighted_mean([placements(ids, sets[0])])
    assert found.covariance == pytest.approx(delong_by_pairs(ids, sets[0]), rel=1e-10)
    assert found.n_ood_effective == pytest.approx(20)


def test_without_weights_every_set_counts_alike():
    ids, sets = three_sets()
    expected = np.mean([pairwise(ids, oods).mean(axis=(1, 2)) for oods in sets], axis=0)
    assert weighted_mean(placements(ids, oods) for oods in sets).auroc == pytest.approx(expected, abs=1e-14)


def test_means_that_cannot_be_taken_are_refused():
    one, other = placements(np.arange(5), np.arange(4)), placements(np.arange(6), np.arange(4))
    with pytest.raises(InputError, match="the mean of no OOD sets"):
        MeanAccumulator().estimate()
    with pytest.raises(InputError, match="2 weights for 1 OOD sets"):
        weighted_mean([one], [1.0, 2.0])
    with pytest.raises(InputError, match=r"weight is -1\.0; valid: positive"):
        weighted_mean([one], [-1.0])
    with pytest.raises(InputError, match=r"\(1, 6\) after \(1, 5\): all sets share their ID samples"):
        weighted_mean([one, other])


def test_a_p_value_is_the_normal_tail_of_the_standardised_difference():
    covariance = [[4e-4, 1e-4], [1e-4, 9e-4]]
    z = 0.05 / math.sqrt(4e-4 + 9e-4 - 2e-4)
    expected = 2 * normal_cdf(-z)
    assert paired_p_values([0.80, 0.85], covariance) == pytest.approx(
        np.array([[1, expected], [expected, 1]])
    )


def test_without_variance_equal_aurocs_have_p_1_and_unequal_ones_p_0():
    assert paired_p_values([1.0, 1.0, 0.5], np.zeros((3, 3))).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_scorers_that_order_alike_are_never_told_apart():
    ids, oods = three_scorers(8, m=500, n=400)
    found = placements(
        np.stack([ids[1], ids[1] * 3, np.exp(ids[1])]), np.stack([oods[1], oods[1] * 3, np.exp(oods[1])])
    )
    assert (paired_p_values(found.auroc, found.covariance()) == 1).all()


def test_p_values_of_arrays_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"covariance has shape \(3, 3\); valid: \(2, 2\)"):
        paired_p_values([0.5, 0.6], np.eye(3))
    with pytest.raises(InputError, match="auroc holds 1 NaN of 2"):
        paired_p_values([0.5, np.nan], np.eye(2))
    with pytest.raises(InputError, match=r"auroc has shape \(1, 2\); valid: 1 dimension"):
        paired_p_values([[0.5, 0.6]], np.eye(2))


def test_holm_steps_down_as_worked_by_hand():
    # In order .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, and the last is lifted to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.03]) == pytest.approx([0.03])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_exactly_what_its_sequential_rule_rejects(p_values):
    adjusted = holm(p_values)
    remaining, rejected = len(p_values), set()
    for index in np.argsort(p_values, kind="stable"):
        if p_values[index] * remaining > 0.05:
            break
        rejected.add(int(index))
        remaining -= 1
    assert set(np.flatnonzero(adjusted <= 0.05).tolist()) == rejected


def test_holm_refuses_what_is_not_a_probability():
    with pytest.raises(InputError, match=r"p_values reach from -0\.1 to 0\.5; valid: 0\.\.1"):
        holm([0.5, -0.1])


def test_rank_ranges_count_those_significantly_better_and_worse():
    auroc = [0.70, 0.90, 0.80, 0.89]
    p_values = np.ones((4, 4))
    for row, column, p in ((0, 1, 1e-6), (0, 3, 1e-5), (0, 2, 0.005), (1, 2, 0.03), (2, 3, 0.2), (1, 3, 0.9)):
        p_values[row, column] = p_values[column, row] = p
    # Holm: 6e-6, 5e-5 and 4 * .005 = .02 are significant, 3 * .03 = .09 is not:
    # the first loses to all others, and no other pair differs.
    best, worst = rank_ranges(auroc, p_values)
    assert best.tolist() == [4, 1, 1, 1]
    assert worst.tolist() == [4, 3, 3, 3]
    strict_best, strict_worst = rank_ranges(auroc, p_values, alpha=0.001)
    assert strict_best.tolist() == [3, 1, 1, 1]
    assert strict_worst.tolist() == [4, 3, 4, 3]


def test_scorers_that_all_differ_have_one_rank_each_and_equals_share_all():
    assert [r.tolist() for r in rank_ranges([0.7, 0.9, 0.8], np.zeros((3, 3)))] == [[3, 1, 2], [3, 1, 2]]
    assert [r.tolist() for r in rank_ranges([0.7, 0.7, 0.7], np.ones((3, 3)))] == [[1, 1, 1], [3, 3, 3]]
    assert [r.tolist() for r in rank_ranges([0.7], np.ones((1, 1)))] == [[1], [1]]


def test_rank_ranges_refuse_what_does_not_fit():
    with pytest.raises(InputError, match=r"p_values has shape \(2, 2\); valid: \(3, 3\)"):
        rank_ranges([0.7, 0.8, 0.9], np.ones((2, 2)))
    with pytest.raises(InputError, match="alpha is 5; valid: between 0 and 1"):
        rank_ranges([0.7], np.ones((1, 1)), alpha=5)


def test_the_paired_t_test_gives_the_tabled_p_values():
    differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0]) / 100
    base = np.array([0.8, 0.7, 0.75, 0.72, 0.81])
    # t = 3 / (sqrt(2.5) / sqrt(5)) = sqrt(18). Student's distribution with 4 degrees of freedom is
    # F(t) = 1/2 + 3/8 u (1 - u² / 12), u = t / sqrt(1 + t² / 4).
    t = math.sqrt(18)
    u = t / math.sqrt(1 + t**2 / 4)
    expected = 2 * (0.5 - 3 / 8 * u * (1 - u**2 / 12))
    found = paired_t_p_values([base, base + differences])
    assert found == pytest.approx(np.array([[1, expected], [expected, 1]]), abs=1e-10)


def test_fewer_than_five_seeds_leave_every_pair_undecided():
    assert (paired_t_p_values([[0.5, 0.5, 0.5, 0.5], [0.9, 0.91, 0.92, 0.93]]) == 1).all()


def test_differences_that_no_seed_changes_have_p_0_and_none_at_all_p_1():
    base = np.array([0.81, 0.77, 0.79, 0.83, 0.7])
    assert paired_t_p_values([base, base, base + 0.1]).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def draw_means(seed, shifts, *, scorers=1, m=120, n=150, draws=DRAWS):
    """Draw experiments whose OOD sets share their ID samples; yield a batch's sets, a row a draw and scorer.

    Of two scorers, the first has the first half of the rows; they are equally good, correlated and different.
    """
    rng = np.random.default_rng(seed)

    def scores(count):
        common = rng.normal(size=(1, DRAWS_AT_ONCE, count))
        own = rng.normal(size=(scorers, DRAWS_AT_ONCE, count))
        return (math.sqrt(0.7) * common + math.sqrt(0.3) * own).reshape(-1, count)

    for _ in range(0, draws, DRAWS_AT_ONCE):
        ids = scores(m)
        yield [placements(ids, scores(n) + shift) for shift in shifts]


def sharing_the_id_samples(sets: list[Placements]):
    mean = weighted_mean(sets)
    return mean.auroc, mean.covariance, mean.n_ood_effective


def as_if_independent(sets: list[Placements]):
    """The wrong formula: the variance of a mean of independent AUROCs."""
    total = sum(one.covariance() for one in sets)
    return np.mean([one.auroc for one in sets], axis=0), total / len(sets) ** 2, len(sets) * 150


def coverage(seed, shifts, estimate, draws=DRAWS):
    truth = np.mean([true_auroc(shift) for shift in shifts])
    covered = 0
    for sets in draw_means(seed, shifts, draws=draws):
        auroc, covariance, n_ood = estimate(sets)
        limits = [logit_interval(a, v, 120, n_ood) for a, v in zip(auroc, covariance.diagonal(), strict=True)]
        covered += sum(lower <= truth <= upper for lower, upper in limits)
    return covered / draws


def rejections(seed, shifts, estimate, draws=DRAWS):
    rejected = 0
    for sets in draw_means(seed, shifts, scorers=2, draws=draws):
        auroc, covariance, _ = estimate(sets)
        first, second = np.arange(DRAWS_AT_ONCE), np.arange(DRAWS_AT_ONCE, 2 * DRAWS_AT_ONCE)
        rejected += int((paired_p_values(auroc, covariance)[first, second] < 0.05).sum())
    return rejected / draws


@pytest.mark.parametrize("shifts", [(0.3,), (1.2,), (2.5,), SHIFTS], ids=str)
def test_intervals_of_an_auroc_and_of_a_mean_cover_the_truth_95_times_of_100(shifts):
    assert coverage(10, shifts, sharing_the_id_samples) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("shifts", [(1.2,), SHIFTS], ids=str)
def test_equally_good_scorers_are_told_apart_at_most_6_times_of_100(shifts):
    assert 0.03 <= rejections(11, shifts, sharing_the_id_samples) <= 0.06


def test_taking_the_sets_as_independent_covers_and_rejects_wrongly():
    assert coverage(10, SHIFTS, as_if_independent, draws=500) < 0.88
    assert rejections(11, SHIFTS, as_if_independent, draws=500) > 0.12
