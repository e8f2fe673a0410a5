import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

import harness
from harness_plugins.probes.diffusion import diffusion_spectral_entropy
from harness_plugins.probes.drift import STATISTICS, DriftDetector


def vectors(count, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 6)) + 2 + shift * np.eye(6)[0]
    return torch.as_tensor(rows)


@pytest.fixture
def reference():
    return vectors(80, 0)


@pytest.fixture
def batches():
    return [vectors(20, seed) for seed in range(1, 9)]


def unit(rows):
    return (rows / rows.norm(dim=1, keepdim=True)).numpy()


def test_statistics_are_their_formulas(reference, batches):
    batch = vectors(20, 99, shift=3)
    r, b = unit(reference), unit(batch)
    sigma = np.median(pdist(r))
    gram = {pair: np.exp(-cdist(x, y, "sqeuclidean") / (2 * sigma**2))
            for pair, (x, y) in {"rr": (r, r), "bb": (b, b), "rb": (r, b)}.items()}  # fmt: skip
    expected = {
        "dse": diffusion_spectral_entropy(np.concatenate([r, b]), sigma=sigma),
        "knn": np.sort(cdist(b, r), axis=1)[:, 9].mean(),
        "mmd": (gram["rr"].sum() - 80) / (80 * 79)
        + (gram["bb"].sum() - 20) / (20 * 19)
        - 2 * gram["rb"].mean(),
    }
    for statistic in STATISTICS:
        fitted = DriftDetector(statistic).fit(reference, batches)
        assert fitted.sigma == pytest.approx(sigma, rel=1e-2)  # of an even count torch's median is the lower
        known = [fitted.value(held) for held in batches]
        off = (fitted.value(batch) - np.mean(known)) / np.std(known, ddof=1)
        assert fitted.value(batch) == pytest.approx(expected[statistic], rel=2e-2)
        assert fitted.score(batch) == pytest.approx(abs(off) if statistic == "dse" else off)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_drifted_batch_stands_out(statistic, reference, batches):
    fitted = DriftDetector(statistic, scale=0.5).fit(reference, batches)
    drifted = min(fitted.score(vectors(20, seed, shift=-8)) for seed in range(50, 55))
    clean = max(fitted.score(vectors(20, seed)) for seed in range(60, 65))
    assert drifted > clean


def test_bad_input_is_one_line(reference, batches):
    with pytest.raises(harness.HarnessError, match=r"statistic.*'mean'.*dse, knn, mmd"):
        DriftDetector("mean")
    with pytest.raises(harness.InputError, match="scale=0"):
        DriftDetector(scale=0)
    with pytest.raises(harness.InputError, match=r"2 ID batches of sizes \[20\]"):
        DriftDetector().fit(reference, batches[:2])
    with pytest.raises(harness.InputError, match=r"sizes \[19, 20\]"):
        DriftDetector().fit(reference, [*batches, vectors(19, 3)])
    with pytest.raises(harness.InputError, match="reference of 10 vectors"):
        DriftDetector().fit(reference[:10], batches)
    with pytest.raises(harness.InputError, match="median distance is 0"):
        DriftDetector().fit(torch.ones(20, 6), batches)
    with pytest.raises(harness.InputError, match=r"all 8 ID batches give"):
        DriftDetector().fit(reference, [batches[0]] * 8)
    with pytest.raises(harness.InputError, match="a batch of 19, but ID batches had 20"):
        DriftDetector().fit(reference, batches).score(vectors(19, 5))
    for statistic in STATISTICS:
        fitted = DriftDetector(statistic).fit(reference, batches)
        with pytest.raises(harness.InputError, match="1 of 20 features hold NaN or infinity"):
            fitted.score(torch.cat([batches[0][1:], torch.full((1, 6), torch.nan)]))
        with pytest.raises(harness.InputError, match=r"shape \(20, 5\). Give \(n, 6\)"):
            fitted.score(batches[0][:, 1:])
    with pytest.raises(harness.InputError, match="80 of 80 features hold NaN"):
        DriftDetector().fit(reference * torch.nan, batches)
