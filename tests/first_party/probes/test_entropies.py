"""The measures as probes of a suite."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import harness
from harness.contract.registry import Registry
from harness_plugins.probes import clouds, diffusion, er
from harness_plugins.probes.accuracy import ClassifierAccuracy
from harness_plugins.probes.entropies import (
    ClassEntropy,
    DiffusionEntropy,
    DiffusionInformation,
    InputInformation,
    VmfEntropy,
)


@pytest.fixture(scope="module")
def features():
    draw = torch.Generator().manual_seed(0)
    return harness.Features(
        penultimate=torch.randn(90, 6, generator=draw),
        logits=torch.randn(90, 4, generator=draw),
        labels=torch.arange(90) % 3,
        inputs=torch.randn(90, 12, generator=draw),
    )


def measured(probe, features):
    return probe.measure(harness.FeatureSet.of(features, chunk_size=40))


@pytest.mark.parametrize("parameters", [{}, {"sigma": "median"}, {"sigma": 2.0, "t": 2, "alpha": 1.0}])
def test_diffusion_entropy(features, parameters):
    expected = diffusion.diffusion_spectral_entropy(features.penultimate, **parameters)
    assert measured(DiffusionEntropy(**parameters), features) == harness.Measurement(
        pytest.approx(expected), None
    )


def test_diffusion_information(features):
    expected = diffusion.diffusion_spectral_mutual_information(
        features.penultimate, features.labels, sigma=1.0
    )
    assert measured(DiffusionInformation(sigma=1.0), features).value == pytest.approx(expected)


def test_input_information_is_that_of_clusters_of_the_pixels_found_once(features, monkeypatch):
    expected = diffusion.diffusion_spectral_mutual_information(
        features.penultimate, features.inputs, sigma=1.0, clusters=4
    )
    calls = []
    original = clouds.input_clusters
    monkeypatch.setattr(clouds, "input_clusters", lambda *given: calls.append(1) or original(*given))
    probe = InputInformation(sigma=1.0, clusters=4)
    assert [measured(probe, features).value for _ in range(2)] == [pytest.approx(expected)] * 2
    assert len(calls) == 1


def test_classifier_accuracy_counts_labelled_samples(features):
    labels = features.labels.clone()
    labels[::2] = -1
    hits = [
        int(row.argmax()) == int(label)
        for row, label in zip(features.logits, labels, strict=True)
        if label >= 0
    ]
    found = measured(ClassifierAccuracy(), harness.Features(logits=features.logits, labels=labels))
    assert found.value == pytest.approx(sum(hits) / 45)


@pytest.mark.parametrize("reduction", er.REDUCTIONS)
def test_vmf_and_class_entropy(features, reduction):
    expected = er.vmf_entropy(functional.normalize(features.penultimate.double()), reduction=reduction)
    assert measured(VmfEntropy(reduction=reduction), features).value == pytest.approx(expected.item())
    expected = er.discrete_entropy(features.logits.double().softmax(dim=1), reduction=reduction)
    assert measured(ClassEntropy(reduction=reduction), features).value == pytest.approx(expected.item())


def test_only_so_many_rows_are_read(features):
    small = measured(DiffusionEntropy(sigma=1e-3, size=32), features).value
    assert small == pytest.approx(math.log2(32))  # all points far apart


def test_dead_features_are_named(features):
    rows = features.penultimate.clone()
    rows[3] = 0
    with pytest.raises(harness.InputError, match="1 of 90 features are zero and have no direction"):
        measured(VmfEntropy(), harness.Features(penultimate=rows))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DiffusionEntropy(sigma=0), "sigma is 0"),
        (lambda: DiffusionEntropy(t=0), "t is 0"),
        (lambda: DiffusionEntropy(size=1), "size is 1. Give 2 or more"),
        (lambda: DiffusionInformation(sigma="mode"), "sigma is 'mode'"),
        (lambda: VmfEntropy(kappa=-1), "kappa is -1"),
        (lambda: VmfEntropy(reduction="sum"), "no reduction named 'sum'"),
    ],
)
def test_bad_parameters_are_one_line(build, message):
    with pytest.raises(harness.HarnessError, match=message):
        build()


def test_every_offered_probe_gives_a_number(features):
    registry = Registry.load()
    train = harness.FeatureSet.of(features)
    for name in registry.names("probe"):
        spec = registry.get("probe", name).spec
        probe = spec.build()
        if hasattr(probe, "fit"):
            probe = probe.fit(harness.FitData(train=train.only(spec.needs)))
        value = probe.measure(train.only(spec.needs)).value
        assert np.isfinite(value), name
