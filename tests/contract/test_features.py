"""Features give what was declared and nothing else; sets of them are read in chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import harness
from harness.base.errors import InputError, NotDeclaredError


@pytest.fixture
def features() -> harness.Features:
    return harness.Features(
        logits=torch.arange(20.0).view(10, 2), labels=torch.arange(10), layers={"a.b": torch.ones(10, 3)}
    )


def test_an_undeclared_field_raises_with_the_fix(features: harness.Features) -> None:
    with pytest.raises(
        NotDeclaredError, match=r"'penultimate' was read.*Add 'penultimate' to the spec's needs"
    ):
        _ = features.penultimate
    with pytest.raises(NotDeclaredError, match="'labels'"):
        _ = features.only(frozenset({"logits"})).labels


def test_fields_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"differ in length: \{'logits': 2, 'labels': 3\}"):
        harness.Features(logits=torch.zeros(2, 2), labels=torch.zeros(3))
    with pytest.raises(InputError, match="at least one"):
        harness.Features()


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_chunks_put_together_are_the_set(features: harness.Features, size: int) -> None:
    chunks = list(harness.FeatureSet.of(features, chunk_size=size))
    assert torch.equal(torch.cat([chunk.logits for chunk in chunks]), features.logits)
    assert torch.equal(torch.cat([chunk.layers["a.b"] for chunk in chunks]), features.layers["a.b"])
    assert max(map(len, chunks)) <= size


def test_a_set_can_be_read_again_and_sampled_by_seed(features: harness.Features) -> None:
    whole = harness.FeatureSet.of(features, chunk_size=3)
    assert len(list(whole)) == len(list(whole)) == 4
    assert torch.equal(whole.sample(4, seed=1).labels, whole.sample(4, seed=1).labels)
    assert len(set(whole.sample(4, seed=1).labels.tolist())) == 4
    assert not torch.equal(whole.sample(4, seed=1).labels, whole.sample(4, seed=2).labels)
    assert torch.equal(whole.sample(99, seed=1).labels, features.labels)
    assert whole.take(np.array([7, 2])).labels.tolist() == [7, 2]


def test_labels_that_were_not_declared_raise(features: harness.Features) -> None:
    with pytest.raises(NotDeclaredError, match="labels"):
        _ = harness.FeatureSet.of(features).only(frozenset({"logits"})).labels


def test_fit_data_gives_only_what_was_declared() -> None:
    data = harness.FitData(head=torch.nn.Identity())
    with pytest.raises(NotDeclaredError, match="'train'"):
        _ = data.train
    with pytest.raises(NotDeclaredError, match="'linear'"):
        _ = harness.FitData().linear
    assert data.head(torch.ones(1)).item() == 1


def test_a_linear_head_is_weight_and_bias() -> None:
    head = harness.LinearHead(
        torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0.5, 0.0, -1.0])
    )
    assert head(torch.tensor([[1.0, 1.0]])).tolist() == [[3.5, 1.0, 0.0]]


def test_an_unknown_need_is_refused_with_the_nearest() -> None:
    with pytest.raises(harness.HarnessError, match=r"no need named 'logit'\. Did you mean 'logits'\?"):
        harness.ScorerSpec("x", object, needs={"logit"})  # type: ignore[arg-type]


def test_the_documented_use_from_python_works() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, penultimate = torch.randn(30, 3, generator=generator), torch.randn(30, 4, generator=generator)
    labels = torch.arange(30) % 3
    weight, bias = torch.randn(3, 4, generator=generator), torch.zeros(3)

    scores = harness.scorer("gen", gamma=0.1).score(harness.Features(logits=logits))
    train = harness.FeatureSet.of(harness.Features(logits=logits, penultimate=penultimate, labels=labels))
    knn = harness.scorer("knn", k=5).fit(harness.FitData(train=train, head=harness.LinearHead(weight, bias)))
    distances = knn.score(harness.Features(logits=logits, penultimate=penultimate))
    assert scores.shape == distances.shape == (30,)
    assert scores.dtype == distances.dtype == torch.float64
    assert harness.metrics.auroc(scores, scores) == 0.5


def test_a_head_of_another_kind_is_named() -> None:
    data = harness.FitData(head=torch.nn.Linear(2, 3))
    with pytest.raises(InputError, match=r"the head is a Linear\. Give harness\.LinearHead"):
        _ = data.linear
