"""DINO, SwAV, DeepCluster and ER in their place, against their papers' formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

import harness
from harness_plugins.models.networks import cnn
from harness_plugins.objectives.deepcluster import DeepCluster, spherical_kmeans
from harness_plugins.objectives.dino import DINO
from harness_plugins.objectives.er import EntropyReconstruction
from harness_plugins.objectives.prototypes import Prototypes
from harness_plugins.objectives.swav import SwAV, sinkhorn

RNG = np.random.default_rng(0)
COSINES = RNG.uniform(-1, 1, size=(2, 2, 5, 3))  # student and teacher, views, images, prototypes
NO_TARGETS = torch.zeros(5, dtype=torch.int64)
IN_THEIR_PLACE: dict[str, Any] = {"support": "discrete", "prototypes": 3, "temperature": 0.1}


def cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    return float(-(targets * log_softmax(logits, axis=1)).sum(axis=1).mean())


def swapped(targets: np.ndarray, logits: np.ndarray) -> float:
    return (cross_entropy(targets[0], logits[1]) + cross_entropy(targets[1], logits[0])) / 2


def loss_of(objective: Any, outputs: np.ndarray) -> float:
    return float(objective.loss(torch.from_numpy(outputs), NO_TARGETS))


def network(objective: Any) -> Any:
    torch.manual_seed(0)
    return objective.around(cnn((1, 8, 8), 2, width=4), 16)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


# DINO


def test_dino_is_the_cross_entropy_with_the_sharper_teachers_other_view() -> None:
    student, teacher = COSINES
    expected = swapped(softmax(teacher / 0.04, axis=-1), student / 0.1)
    assert loss_of(DINO(), COSINES) == pytest.approx(expected, rel=1e-12)


def test_dinos_centre_is_the_moving_average_of_the_teachers_batch_means() -> None:
    net = network(DINO(prototypes=3, center_momentum=0.8, ema=0.5)).train()
    centre = np.zeros(3)
    for step in range(3):
        batch = images(10, seed=step)
        with torch.no_grad():
            cosines = net.teacher(batch).double().numpy()  # in train mode: BatchNorm uses the batch alone
            outputs = net(batch)
        np.testing.assert_allclose(outputs[1].flatten(0, 1).numpy(), cosines - centre, atol=1e-5)
        np.testing.assert_allclose(net.centre.numpy(), centre, atol=1e-6)  # of earlier batches only
        net.after_step()
        centre = 0.8 * centre + 0.2 * cosines.mean(axis=0)
        np.testing.assert_allclose(net.centre.numpy(), centre, atol=1e-6)
    assert "centre" in net.state_dict()


def test_dinos_teacher_follows_with_its_prototypes() -> None:
    net = network(DINO(prototypes=3, ema=0.75))
    before = net.teacher.projector[-1].weight.clone()
    with torch.no_grad():
        net.student.projector[-1].weight.add_(1)
    net.after_step()
    torch.testing.assert_close(net.teacher.projector[-1].weight, before + 0.25)
    assert not any(parameter.requires_grad for parameter in net.teacher.parameters())


def test_evaluation_moves_no_centre() -> None:
    net = network(DINO(prototypes=3)).eval()
    net(images(10))
    net.after_step()
    assert not net.centre.any()


# SwAV


def transport(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """Scale Q = exp(scores / ε) in turn to row sums 1/K and column sums 1/B: Algorithm 1 of the paper's appendix."""
    q = np.exp(scores / epsilon).T  # (K, B)
    q /= q.sum()
    prototypes, batch = q.shape
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * prototypes
        q /= q.sum(axis=0, keepdims=True) * batch
    return (q * batch).T


@pytest.mark.parametrize("iterations", [1, 3])
def test_codes_are_those_of_the_papers_algorithm(iterations: int) -> None:
    scores = RNG.uniform(-1, 1, size=(7, 4))
    found = sinkhorn(torch.from_numpy(scores), epsilon=0.05, iterations=iterations)
    np.testing.assert_allclose(found.numpy(), transport(scores, 0.05, iterations), rtol=1e-10)


def test_codes_share_the_batch_equally() -> None:
    scores = torch.from_numpy(RNG.uniform(-1, 1, size=(12, 4)))
    found = sinkhorn(scores, epsilon=0.5, iterations=100)
    np.testing.assert_allclose(found.sum(dim=1).numpy(), np.ones(12), rtol=1e-12)
    np.testing.assert_allclose(found.sum(dim=0).numpy(), np.full(4, 12 / 4), rtol=1e-9)


def test_codes_of_a_collapsed_batch_are_uniform_and_overflow_nothing() -> None:
    one = torch.full((6, 4), -1.0)
    one[:, 2] = 1.0
    found = sinkhorn(one, epsilon=1e-3, iterations=3)
    torch.testing.assert_close(found, torch.full((6, 4), 0.25))


def test_swav_predicts_the_code_of_the_other_view() -> None:
    cosines = COSINES[0]
    codes = np.stack([transport(view, 0.05, 3) for view in cosines])
    expected = swapped(codes, cosines / 0.1)
    assert loss_of(SwAV(prototypes=3), COSINES[:1]) == pytest.approx(expected, rel=1e-9)


def test_codes_have_no_gradient() -> None:
    cosines = torch.from_numpy(COSINES[:1]).requires_grad_()
    SwAV(prototypes=3).loss(cosines, NO_TARGETS).backward()
    codes = np.stack([transport(view, 0.05, 3) for view in COSINES[0]])
    # ∂/∂s of -Σ q log softmax(s / τ) is (softmax(s / τ) - q) / τ, here over 2 views × 5 images.
    expected = (softmax(COSINES[0] / 0.1, axis=-1) - codes[::-1]) / 0.1 / 10
    assert cosines.grad is not None
    np.testing.assert_allclose(cosines.grad[0].numpy(), expected, atol=1e-12)


# DeepCluster


def test_deepcluster_predicts_the_weighted_cluster_of_the_other_view() -> None:
    clusters = np.zeros((2, 5, 3))
    nearest = np.array([[0, 1, 2, 1, 0], [0, 1, 1, 1, 2]])
    weights = np.array([0.5, 2.0, 1.5])
    np.put_along_axis(clusters, nearest[..., None], weights[nearest][..., None], axis=2)
    logs = log_softmax(COSINES[0] / 0.1, axis=-1)
    losses = [
        -weights[nearest[1 - view, i]] * logs[view, i, nearest[1 - view, i]]
        for view in range(2)
        for i in range(5)
    ]
    outputs = np.stack([COSINES[0], clusters])
    assert loss_of(DeepCluster(prototypes=3), outputs) == pytest.approx(np.mean(losses), rel=1e-12)


def test_kmeans_finds_groups_of_directions_and_their_sizes() -> None:
    angles = np.array([0.0, 2.0, 4.0, 0.1, 0.2, 2.1, 4.1, -0.1])  # three groups; the first three points start
    points = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    centroids, sizes = spherical_kmeans(points, 3, 10)
    assert sizes.tolist() == [4, 2, 2]
    groups = [np.array([0.0, 0.1, 0.2, -0.1]), np.array([2.0, 2.1]), np.array([4.0, 4.1])]
    for centroid, group in zip(centroids.numpy(), groups, strict=True):
        mean = np.array([np.cos(group).sum(), np.sin(group).sum()])
        np.testing.assert_allclose(centroid, mean / np.linalg.norm(mean), rtol=1e-12)


def test_an_empty_cluster_keeps_its_centroid_and_divides_nothing_by_zero() -> None:
    points = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]]  # the second start repeats the first
    centroids, sizes = spherical_kmeans(points, 2, 10)
    assert sizes.sum() == 4
    assert centroids.isfinite().all()
    centroids, sizes = spherical_kmeans(points[:2], 2, 3)  # one direction
    assert sizes.tolist() == [2, 0]
    assert centroids.tolist() == [[1, 0], [1, 0]]


def test_there_is_one_clustering_each_time_that_the_memory_is_full() -> None:
    net = network(DeepCluster(prototypes=3, memory=8, dim=4, hidden=6)).train()
    clustered = []
    for step in range(6):  # of 4 images, so each second step fills it
        net(torch.cat([images(4, seed=step)] * 2))
        before = net.centroids.clone()
        net.after_step()
        clustered.append(not torch.equal(before, net.centroids))
    assert clustered == [False, True, False, True, False, True]
    assert int(net.seen) == 24


def test_the_memory_holds_an_embedding_of_each_of_the_last_images() -> None:
    net = network(DeepCluster(prototypes=2, memory=6, dim=4, hidden=6)).train()
    kept = []
    for step in range(3):
        batch = torch.cat([images(4, seed=step), images(4, seed=10 + step)])
        with torch.no_grad():
            projected = net.student(batch)[:4]
            kept.append(projected / projected.norm(dim=1, keepdim=True))
            net(batch)
        net.after_step()
    last = torch.cat(kept)[-6:]  # images 6 to 11 are at 6 % 6, 7 % 6, ...
    torch.testing.assert_close(net.memory, last)


def test_weights_are_inverse_to_the_sizes_of_clusters_with_mean_one() -> None:
    net = network(DeepCluster(prototypes=3, memory=6, dim=2, hidden=6))
    angles = torch.tensor([0.0, 2.0, 4.0, 0.1, 0.2, 2.1])
    net._cluster(torch.stack([angles.cos(), angles.sin()], dim=1))
    sizes = np.array([3, 2, 1])
    np.testing.assert_allclose(net.weights.numpy(), 6 / (3 * sizes), rtol=1e-6)
    assert (sizes * net.weights.numpy()).sum() / 6 == pytest.approx(1)


def test_clusters_stay_those_of_the_network_at_the_time_of_the_clustering() -> None:
    net = network(DeepCluster(prototypes=3, memory=8, dim=4, hidden=6)).train()
    batch = images(8)
    cosines, clusters = net(batch)
    assert cosines.shape == clusters.shape == (2, 4, 3)
    assert (clusters > 0).sum(dim=-1).eq(1).all()
    assert torch.equal(clusters.argmax(dim=-1), cosines.argmax(dim=-1))  # the student is still the copy
    with torch.no_grad():
        for parameter in net.student.projector.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    net.after_step()
    moved, after = net(batch)
    assert not torch.allclose(moved, cosines)
    assert torch.equal(after, clusters)
    net.after_step()  # the memory is full: it clusters, and copies the student
    assert all(map(torch.equal, net.teacher.parameters(), net.student.parameters()))
    cosines, clusters = net(batch)
    assert torch.equal(clusters.argmax(dim=-1), cosines.argmax(dim=-1))


def test_fewer_images_than_clusters_are_refused_in_one_line() -> None:
    net = network(DeepCluster(prototypes=5, memory=8, dim=4)).train()
    with pytest.raises(
        harness.InputError, match="5 clusters of 4 images. Give fewer prototypes, or a larger"
    ):
        net(images(8))


# ER in their place


def mean_entropy(shares: np.ndarray) -> float:
    """Average both views' entropies of the mean over the batch."""
    means = shares.mean(axis=1)
    return float(-(means * np.log(means)).sum(axis=-1).mean())


def test_er_in_the_place_of_dino_has_the_students_entropy_instead_of_the_centre() -> None:
    student, teacher = COSINES
    expected = swapped(softmax(teacher / 0.04, axis=-1), student / 0.1)
    expected -= mean_entropy(softmax(student / 0.1, axis=-1))
    objective = EntropyReconstruction(**IN_THEIR_PLACE, target_temperature=0.04, ema=0.9)
    assert loss_of(objective, COSINES) == pytest.approx(expected, abs=1e-5)


def test_er_in_the_place_of_swav_and_deepcluster_takes_the_student_as_its_own_target() -> None:
    student = COSINES[0]
    expected = swapped(softmax(student / 0.05, axis=-1), student / 0.1)
    expected -= mean_entropy(softmax(student / 0.1, axis=-1))
    objective = EntropyReconstruction(**IN_THEIR_PLACE, target_temperature=0.05)
    assert loss_of(objective, COSINES[:1]) == pytest.approx(expected, abs=1e-5)


def test_er_has_no_gradient_on_the_teacher() -> None:
    outputs = torch.from_numpy(COSINES).requires_grad_()
    EntropyReconstruction(**IN_THEIR_PLACE, target_temperature=0.04, ema=0.9).loss(
        outputs, NO_TARGETS
    ).backward()
    assert outputs.grad is not None
    assert outputs.grad[0].abs().min() > 0
    assert not outputs.grad[1].any()


def test_targets_of_the_student_have_no_gradient_and_the_entropy_has_one() -> None:
    outputs = torch.from_numpy(COSINES[:1]).requires_grad_()
    EntropyReconstruction(**IN_THEIR_PLACE, target_temperature=0.05).loss(outputs, NO_TARGETS).backward()
    student = COSINES[0]
    s, t = softmax(student / 0.1, axis=-1), softmax(student / 0.05, axis=-1)[::-1]
    of_reconstruction = (s - t) / 0.1 / 10
    # H(m), m the mean of s over 5 images, ∂H/∂s = -(ln m + 1) / 5, through the softmax; averaged over two views.
    of_mean = -(np.log(s.mean(axis=1, keepdims=True)) + 1) / 5
    of_entropy = s * (of_mean - (s * of_mean).sum(axis=-1, keepdims=True)) / 0.1 / 2
    assert outputs.grad is not None
    np.testing.assert_allclose(outputs.grad[0].numpy(), of_reconstruction - of_entropy, atol=1e-6)


def test_all_images_in_one_prototype_are_no_minimum_of_er() -> None:
    spread = np.stack([np.eye(3)[[0, 1, 2, 0, 1]]] * 2)[None]
    collapsed = np.stack([np.eye(3)[[0] * 5]] * 2)[None]
    objective = EntropyReconstruction(**IN_THEIR_PLACE, target_temperature=0.05)
    assert loss_of(objective, spread) < loss_of(objective, collapsed) - 1


# Networks and parameters


def test_prototypes_give_cosines() -> None:
    layer, vectors = Prototypes(4, 3), torch.randn(6, 4)
    rows, directions = vectors.numpy(), layer.weight.detach().numpy()
    lengths = np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(directions, axis=1))
    np.testing.assert_allclose(layer(vectors).detach().numpy(), rows @ directions.T / lengths, rtol=1e-4)
    full = layer(vectors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(vectors), full)


ALL = (DINO(), SwAV(), DeepCluster(prototypes=4, memory=8))


@pytest.mark.parametrize("objective", ALL)
def test_they_train_encoders_on_two_views(objective: Any) -> None:
    assert isinstance(objective, harness.ViewObjective)
    assert objective.views == 2
    assert isinstance(objective.head(8, 3), nn.Identity)
    net = network(objective).train()
    outputs = net(images(16))
    assert outputs.shape[1:3] == (2, 8)
    objective.loss(outputs, NO_TARGETS).backward()
    gradients = [parameter.grad for parameter in net.student.encoder.stages.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (DINO, {"temperature": 0.0}, r"temperature is 0\.0\. Give a number above 0"),
        (DINO, {"teacher_temperature": -1.0}, r"teacher_temperature is -1\.0"),
        (DINO, {"center_momentum": 1.5}, r"center_momentum is 1\.5\. Give a share from 0 to 1"),
        (DINO, {"ema": 2.0}, r"ema is 2\.0"),
        (DINO, {"prototypes": 1}, "prototypes is 1. Give a whole number of at least 2"),
        (SwAV, {"epsilon": 0.0}, r"epsilon is 0\.0"),
        (SwAV, {"iterations": 0}, "iterations is 0. Give a whole number of at least 1"),
        (SwAV, {"prototypes": True}, "prototypes is True"),
        (SwAV, {"dim": 1}, "dim is 1"),
        (DeepCluster, {"memory": 10}, "memory is 10. Give a whole number of at least the prototypes, 64"),
        (DeepCluster, {"temperature": float("nan")}, "temperature is nan"),
        (DeepCluster, {"hidden": 0}, "hidden is 0"),
        (EntropyReconstruction, {"prototypes": 8}, 'prototypes is for support = "discrete". Leave it out'),
        (EntropyReconstruction, {"target_temperature": 0.1}, "target_temperature is for support"),
        (
            EntropyReconstruction,
            {"support": "discrete", "target_temperature": 0.0},
            r"target_temperature is 0\.0",
        ),
        (EntropyReconstruction, {"support": "discrete", "prototypes": 0}, "prototypes is 0"),
    ],
)
def test_parameters_out_of_range_are_refused(make: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.InputError, match=message):
        make(**params)
