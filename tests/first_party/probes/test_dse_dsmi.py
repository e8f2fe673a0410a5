"""The calls of the authors' package: their keywords, numbers and clusters, from runs of dse-dsmi 1.1."""

import importlib.util
import inspect
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness_plugins.probes import dse_dsmi
from harness_plugins.probes.classic import adjacency_spectral_mutual_information
from harness_plugins.probes.diffusion import diffusion_spectral_mutual_information

GOLDEN = Path(__file__).parents[2] / "golden"
SAVED = json.loads((GOLDEN / "dse_dsmi.json").read_text())
CASES = [(function, case) for function, cases in SAVED.items() for case in cases]


@pytest.fixture(scope="module")
def blobs() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("make_dse_dsmi", GOLDEN / "make_dse_dsmi.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    found: dict[str, Any] = maker.inputs()
    return found


@pytest.mark.parametrize(("function", "case"), CASES)
def test_results_are_those_of_the_package(function: str, case: dict[str, Any], blobs: dict[str, Any]) -> None:
    keywords = dict(case["given"])
    references = [blobs[keywords.pop("reference")]] if "reference" in keywords else []
    found = getattr(dse_dsmi, function)(blobs["points"], *references, **keywords)
    if "clusters" in case:
        found, clusters = found
        assert clusters.tolist() == case["clusters"]
    # The 0s and 1s of neighbours have multiple eigenvalues: the order of the rows moves the package by 1e-5, too.
    assert found == pytest.approx(case["out"], abs=1e-5 if "use_knn" in keywords else 1e-9)


def test_keywords_and_their_order_are_those_of_the_package() -> None:
    adjacency = "anisotropic use_knn knn max_N eigval_save_path eigval_save_precision random_seed verbose"
    assert list(inspect.signature(dse_dsmi.adjacency_spectral_entropy).parameters)[2:] == adjacency.split()
    information = list(inspect.signature(dse_dsmi.diffusion_spectral_mutual_information).parameters)
    assert information[2:5] == ["reference_discrete", "gaussian_kernel_sigma", "t"]
    assert information[6:9] == ["num_repetitions", "n_clusters", "precomputed_clusters"]
    called = {name for _, case in CASES for name in case["given"]}
    assert {"gaussian_kernel_sigma", "max_N", "use_knn", "knn", "num_repetitions", "n_clusters"} <= called


def test_returned_clusters_serve_the_next_call(
    blobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"gaussian_kernel_sigma": 2.0, "n_clusters": 4}
    first, clusters = dse_dsmi.diffusion_spectral_mutual_information(
        blobs["points"], blobs["vectors"], **given
    )
    monkeypatch.setattr(dse_dsmi, "classes_of", lambda *_: pytest.fail("it was clustered again"))
    again, same = dse_dsmi.diffusion_spectral_mutual_information(
        torch.as_tensor(blobs["points"]), blobs["vectors"], precomputed_clusters=clusters, **given
    )
    assert again == first
    assert same.tolist() == clusters.tolist()
    classes, _ = dse_dsmi.adjacency_spectral_mutual_information(
        blobs["points"], blobs["vectors"], precomputed_clusters=clusters, anisotropic=True, **given
    )
    assert classes == pytest.approx(first, abs=1e-12)  # anisotropic adjacency is the diffusion operator


def test_adjacency_information_is_the_formula(blobs: dict[str, Any]) -> None:
    """Σ_c n_c/N [mean ASE of two random subsets - ASE of c], written out for the Gaussian kernel."""
    points, labels = blobs["points"], blobs["labels"]

    def entropy(rows: Any) -> float:
        chosen = points[rows]
        kernel = np.exp(-((chosen[:, None] - chosen) ** 2).sum(axis=2) / 8)
        shares = np.abs(np.linalg.eigvalsh(kernel)) / len(chosen)  # ones on the diagonal: the trace is n
        return float(-(shares * np.log2(shares)).sum())

    expected = 0.0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        draw = random.Random(3)
        subsets = [entropy(draw.sample(range(len(points)), len(rows))) for _ in range(2)]
        expected += len(rows) / len(points) * (np.mean(subsets) - entropy(rows))
    found = adjacency_spectral_mutual_information(points, labels, sigma=2.0, seed=3, repetitions=2)
    assert found == pytest.approx(expected, abs=1e-9)


def test_labels_beside_clusters_go_first_as_in_the_package(blobs: dict[str, Any]) -> None:
    labels, other = blobs["labels"], np.zeros(len(blobs["labels"]))
    found, clusters = dse_dsmi.diffusion_spectral_mutual_information(
        blobs["points"], torch.as_tensor(labels), precomputed_clusters=other
    )
    assert clusters.tolist() == labels.tolist()
    assert found == diffusion_spectral_mutual_information(blobs["points"], labels)


def test_no_global_random_state_is_touched(blobs: dict[str, Any]) -> None:
    before = random.getstate()
    dse_dsmi.diffusion_spectral_mutual_information(blobs["points"], blobs["labels"])
    dse_dsmi.diffusion_spectral_entropy(blobs["points"], max_N=10)
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        ("diffusion_spectral_entropy", {"chebyshev_approx": True}, "chebyshev_approx is not offered"),
        ("diffusion_spectral_entropy", {"eigval_save_path": "e.npz"}, "eigval_save_path is not offered"),
        ("diffusion_spectral_entropy", {"max_N": 0}, "max_N is 0"),
        ("adjacency_spectral_entropy", {"use_knn": True, "knn": 101}, "neighbours is 101 of 100 points"),
    ],
)
def test_what_is_refused_is_one_line(
    function: str, given: dict[str, Any], message: str, blobs: dict[str, Any]
) -> None:
    with pytest.raises(harness.InputError, match=message) as refused:
        getattr(dse_dsmi, function)(blobs["points"], **given)
    assert "\n" not in str(refused.value)


def test_bad_references_are_one_line(blobs: dict[str, Any]) -> None:
    inform = dse_dsmi.diffusion_spectral_mutual_information
    with pytest.raises(harness.InputError, match="reference_discrete is True"):
        inform(blobs["points"], blobs["vectors"], reference_discrete=True)
    with pytest.raises(harness.InputError, match="y has shape"):
        inform(blobs["points"], blobs["labels"][:-1])
    with pytest.raises(harness.InputError, match="repetitions is 0"):
        inform(blobs["points"], blobs["labels"], num_repetitions=0)


def test_the_module_prints_every_measure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dse_dsmi, "PRINTED_ROWS", 60)
    dse_dsmi.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    for line in lines:
        assert -1 < float(line.split()[-2]) < 2 * np.log2(60) + 1e-9, line
