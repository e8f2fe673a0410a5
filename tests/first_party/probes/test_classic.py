import json
from pathlib import Path

import numpy as np
import pytest

import harness
from harness_plugins.probes.classic import (
    adjacency_spectral_entropy,
    binned_entropy,
    binned_mutual_information,
    matrix_entry_entropy,
    matrix_entry_mutual_information,
)

GOLDEN = Path(__file__).parents[2] / "golden"
DSE, DSMI = (json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("dse", "dsmi"))


@pytest.fixture(scope="module")
def x():
    i, j = np.arange(DSE["n"])[:, None], np.arange(DSE["d"])[None, :]
    return np.sin(0.1 * i * j + 0.3 * i) + 1.5 * (i % 3) * np.cos(j)


@pytest.mark.parametrize("case", DSE["matrix_entry"])
def test_matrix_entry_entropy(x, case):
    assert matrix_entry_entropy(x, sigma=case["sigma"]) == pytest.approx(case["out"], abs=1e-9)


@pytest.mark.parametrize("case", DSE["classic"])
def test_binned_entropy(x, case):
    assert binned_entropy(x, bins=case["num_bins_per_dim"]) == pytest.approx(case["out"], abs=1e-9)


@pytest.mark.parametrize("case", DSE["ase"])
def test_adjacency_spectral_entropy(x, case):
    given = {"neighbours": case["knn"]} if "knn" in case else {k: case[k] for k in ("sigma", "anisotropic")}
    assert adjacency_spectral_entropy(x, **given) == pytest.approx(case["out"], abs=1e-9)


def test_mutual_informations(x):
    labels = np.array(DSMI["labels"])
    expected = {case["kind"]: case for case in DSMI["out"]}
    binned = expected["CSMI discrete (2 bins)"]["out"]
    entries = expected["DSMI matrix-entry"]
    assert binned_mutual_information(x, labels) == pytest.approx(binned, abs=1e-9)
    found = matrix_entry_mutual_information(x, labels, sigma=entries["sigma"])
    assert found == pytest.approx(entries["out"], abs=1e-9)


def test_limits():
    assert binned_entropy(np.ones((7, 3))) == pytest.approx(0, abs=1e-12)
    assert binned_entropy(np.array([[0.0], [1.0]])) == pytest.approx(1)
    assert binned_entropy(np.arange(8.0)[:, None], bins=8) == pytest.approx(3)
    assert matrix_entry_entropy(np.ones((8, 2))) == pytest.approx(6)  # all entries alike
    assert adjacency_spectral_entropy(np.ones((8, 2))) == pytest.approx(0, abs=1e-9)


def test_bad_input_is_one_line():
    with pytest.raises(harness.InputError, match="bins is 0"):
        binned_entropy(np.eye(3), bins=0)
    with pytest.raises(harness.InputError, match="neighbours is 4 of 3 points"):
        adjacency_spectral_entropy(np.eye(3), neighbours=4)
    with pytest.raises(harness.InputError, match="sigma is 0"):
        matrix_entry_entropy(np.eye(3), sigma=0)
    with pytest.raises(harness.InputError, match="NaN"):
        binned_entropy(np.full((2, 2), np.nan))
