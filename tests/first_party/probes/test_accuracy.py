import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import harness
from harness_plugins.probes.accuracy import KnnAccuracy, LinearProbeAccuracy


def features(rows, labels):
    return harness.FeatureSet.of(
        harness.Features(penultimate=torch.as_tensor(rows), labels=torch.as_tensor(labels)), chunk_size=17
    )


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6))
    train, test = np.arange(90) % 3, np.arange(60) % 3
    return [(rng.normal(size=(len(y), 6)) * 1.3 + centres[y], y) for y in (train, test)]


def measured(probe, data):
    (train, train_labels), (test, test_labels) = data
    fitted = probe.fit(harness.FitData(train=features(train, train_labels)))
    return fitted.measure(features(test, test_labels))


def test_neighbours_vote_with_weights_of_their_cosine(data):
    (train, train_labels), (test, test_labels) = data
    train, test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, test))
    hits = 0
    for row, truth in zip(test, test_labels, strict=True):
        similarity = train @ row
        nearest = np.argsort(-similarity)[:5]
        votes = np.bincount(train_labels[nearest], np.exp(similarity[nearest] / 0.07), minlength=3)
        hits += votes.argmax() == truth
    assert measured(KnnAccuracy(k=5), data) == harness.Measurement(hits / 60)


def test_the_linear_probe_is_a_logistic_regression_on_standardised_features(data):
    (train, train_labels), (test, test_labels) = data
    scaler = StandardScaler().fit(train)
    regression = LogisticRegression(C=0.5, max_iter=2000).fit(scaler.transform(train), train_labels)
    expected = (regression.predict(scaler.transform(test)) == test_labels).mean()
    assert measured(LinearProbeAccuracy(strength=0.5), data).value == pytest.approx(expected)


@pytest.mark.parametrize("probe", [KnnAccuracy(k=3), LinearProbeAccuracy()])
def test_separated_classes_are_all_right(probe):
    labels = np.arange(40) % 4
    rows = np.eye(4)[labels] + np.random.default_rng(0).normal(size=(40, 4)) * 0.01
    assert measured(probe, [(rows, labels), (rows, labels)]).value == 1


def test_bad_parameters_and_data_are_one_line(data):
    with pytest.raises(harness.InputError, match="k=0"):
        KnnAccuracy(k=0)
    with pytest.raises(harness.InputError, match="strength=0"):
        LinearProbeAccuracy(strength=0)
    with pytest.raises(harness.InputError, match="90 labelled training features for k=91. Give at least k"):
        measured(KnnAccuracy(k=91), data)
    with pytest.raises(harness.InputError, match="temperature=inf"):
        KnnAccuracy(temperature=math.inf)
    one_class = [(data[0][0], np.zeros(90, dtype=int)), data[1]]
    with pytest.raises(harness.InputError, match="of one class"):
        measured(LinearProbeAccuracy(), one_class)


@pytest.mark.parametrize("probe", [KnnAccuracy(k=3), LinearProbeAccuracy()])
def test_samples_without_a_label_do_not_count(probe, data):
    (train, train_labels), (test, test_labels) = data
    known = [(train[train_labels != 2], train_labels[train_labels != 2]), (test[::2], test_labels[::2])]
    hidden = [
        (train, np.where(train_labels == 2, -1, train_labels)),
        (test, np.where(np.arange(len(test)) % 2, -1, test_labels)),
    ]
    assert measured(probe, hidden) == measured(probe, known)
    with pytest.raises(harness.InputError, match="no sample has a label"):
        measured(probe, [data[0], (test, np.full(len(test), -1))])


@pytest.mark.parametrize("probe", [KnnAccuracy(k=3), LinearProbeAccuracy()])
@pytest.mark.parametrize("part", [0, 1])
def test_nan_is_refused_in_training_and_test_features(probe, part, data):
    data[part][0][7, 2] = np.nan
    with pytest.raises(harness.InputError, match=r"1 of \d+ features hold NaN or infinity") as raised:
        measured(probe, data)
    assert "\n" not in str(raised.value)
