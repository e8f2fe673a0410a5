"""What holds for each scorer that the package ships."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

import harness
from harness_plugins.scorers import dse, dse_change, gen, knn, logits, mahalanobis, vim, vmf_kde

MODULES = (logits, gen, knn, mahalanobis, vim, dse, dse_change, vmf_kde)
SPECS = [spec for module in MODULES for spec in module.harness_scorers()]
ALL_OF_TRAIN = {"dse_change": {"bank": 300}}  # parameters with which no sample is left out
FIELDS = {"logits", "penultimate", "labels"}
every_scorer = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def make(seed, n):
    """Return features of n samples of four classes, and the head that gave their logits."""
    head_rng, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres, weight, bias = (
        head_rng.normal(size=(4, 12)),
        head_rng.normal(size=(4, 12)),
        head_rng.normal(size=4),
    )
    labels = rng.integers(4, size=n)
    penultimate = torch.as_tensor(2 * centres[labels] + rng.normal(size=(n, 12)))
    head = harness.LinearHead(torch.as_tensor(weight), torch.as_tensor(bias))
    features = harness.Features(
        logits=head(penultimate), penultimate=penultimate, labels=torch.as_tensor(labels)
    )
    return features, head


def fit_data(spec, *, without=None, train=None, chunk_size=4096):
    """Return the declared parts of what a scorer may fit on, less one."""
    needs = spec.needs - {without}
    features, head = make(0, 300)
    train = harness.FeatureSet.of(train or features, chunk_size=chunk_size).only(needs & FIELDS)
    return harness.FitData(
        train=train if "train" in needs else None, head=head if "linear" in needs else None
    )


def fitted(spec, **options):
    scorer = spec.build(**ALL_OF_TRAIN.get(spec.name, {}))
    return scorer.fit(fit_data(spec, **options)) if isinstance(scorer, harness.FittableScorer) else scorer


def queries(spec):
    features, _ = make(1, 60)
    return features.only(spec.needs - {"labels"})


@every_scorer
def test_the_declared_needs_are_enough(spec):
    scores = fitted(spec).score(queries(spec))
    assert scores.shape == (60,)
    assert scores.dtype == torch.float64
    assert scores.isfinite().all()


@every_scorer
def test_outputs_whose_classes_the_data_never_show_leave_scores_finite(spec):
    features, _ = make(0, 300)
    shown = np.flatnonzero(features.labels.numpy() % 2 == 0)
    few = harness.Features(**{field: getattr(features, field)[shown] for field in FIELDS})
    scores = fitted(spec, train=few).score(queries(spec))
    assert scores.isfinite().all()
    scores_of_all = fitted(spec, train=features).score(queries(spec))
    if "labels" in spec.needs:
        assert not torch.equal(scores, scores_of_all)


@every_scorer
def test_each_declared_need_is_touched(spec):
    for need in spec.needs & {"labels", "linear", "train"}:
        with pytest.raises(harness.HarnessError, match=need):
            fitted(spec, without=need)
    features, scorer = make(1, 60)[0], fitted(spec)
    for need in spec.needs & {"logits", "penultimate"}:
        with pytest.raises(harness.NotDeclaredError, match=f"{need!r} was read"):
            scorer.score(features.only(FIELDS - {need}))


@every_scorer
def test_the_size_of_a_chunk_changes_no_score(spec):
    whole, pieces = fitted(spec), fitted(spec, chunk_size=7)
    expected = whole.score(queries(spec))
    found = torch.cat([pieces.score(chunk) for chunk in harness.FeatureSet.of(queries(spec)).chunks(11)])
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9)


@every_scorer
def test_the_order_of_training_samples_changes_no_score(spec):
    features, _ = make(0, 300)
    shuffled = harness.FeatureSet.of(features).take(np.random.default_rng(5).permutation(300))
    expected = fitted(spec).score(queries(spec))
    np.testing.assert_allclose(
        fitted(spec, train=shuffled).score(queries(spec)).numpy(), expected.numpy(), rtol=1e-8
    )


@every_scorer
def test_fitting_leaves_the_scorer_and_its_input_as_they_were(spec):
    scorer, features = spec.build(), queries(spec)
    before = {field: getattr(features, field).clone() for field in features.fields}
    if isinstance(scorer, harness.FittableScorer):
        new = scorer.fit(fit_data(spec))
        assert new is not scorer
        assert scorer == spec.build()
        scorer = new
    scorer.score(features)
    assert all(torch.equal(getattr(features, field), value) for field, value in before.items())
    assert dataclasses.is_dataclass(scorer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scorer.anything = 1


@every_scorer
def test_far_from_training_scores_higher(spec):
    features, head = make(2, 200)
    needs = spec.needs - {"labels"}
    far = torch.randn(200, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3
    scorer = fitted(spec)
    ood = scorer.score(harness.Features(penultimate=far, logits=head(far)).only(needs))
    is_higher = bool(ood.median() > scorer.score(features.only(needs)).median())
    assert is_higher != spec.unstable  # here it happens to score lower


@every_scorer
def test_a_citation_is_given(spec):
    assert spec.cite


def test_listing_the_scorers_imports_no_torch():
    names = "dse, dse_change, gen, knn, logits, mahalanobis, vim, vmf_kde"
    program = (
        f"import sys; from harness_plugins.scorers import {names}\n"
        f"specs = [s for m in ({names}) for s in m.harness_scorers()]\n"
        "sys.exit(len(specs) if 'torch' not in sys.modules else -1)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == len(SPECS)
