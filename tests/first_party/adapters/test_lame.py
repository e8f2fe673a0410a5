"""LAME against NumPy, prediction by prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from first_party.adapters.by_hand import WITH_NORM, moved, run, state
from first_party.adapters.conftest import tiny, twin
from torch import Tensor, nn

import harness
from harness_plugins.adapters.lame import Lame, affinity


class Given(nn.Module):
    """A classifier whose images are their penultimate features, two, and their logits, (n, 1, 1, 2 + C)."""

    def forward_features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return features[:, :2] if pre_logits else features[:, 2:]

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


def given(penultimate: Any, logits: Any) -> Tensor:
    return torch.tensor(np.concatenate([penultimate, logits], axis=1))[:, None, None]


def kernel_by_hand(features: np.ndarray, neighbours: int) -> np.ndarray:
    units = [f / np.sqrt((f**2).sum()) for f in features]
    distances = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in units] for a in units])
    width = np.mean([sorted(row)[min(neighbours, len(row)) - 1] for row in distances])
    return np.array([[np.exp(-(d**2) / (2 * width**2)) for d in row] for row in distances])


def lame_by_hand(p: np.ndarray, kernel: np.ndarray, iterations: int = 100, tolerance: float = 1e-8) -> Any:
    """Return z and the number of iterations, each an update and the energy Σ z (ln z - ln p - K z_old)."""
    z, energies = p, []
    for _ in range(iterations):
        pull = kernel @ z
        z = p * np.exp(pull)
        z = z / z.sum(axis=1, keepdims=True)
        energies.append((z * (np.log(z) - np.log(p) - pull)).sum())
        if len(energies) > 1 and abs(energies[-1] - energies[-2]) <= tolerance * abs(energies[-2]):
            break
    return z, len(energies)


def adapted_by_hand(before: harness.Features, neighbours: int = 5, **limits: Any) -> Any:
    kernel = kernel_by_hand(before.penultimate.numpy(), neighbours)
    return lame_by_hand(before.logits.softmax(dim=1).numpy(), kernel, **limits)


@pytest.mark.parametrize("norm", [*WITH_NORM, "none"])
@pytest.mark.parametrize("neighbours", [2, 5, 50])
def test_predictions_are_numpy_s(norm: str, neighbours: int, batches: list[Tensor]) -> None:
    for found in run(Lame(neighbours=neighbours), tiny(norm), batches):
        z, iterations = adapted_by_hand(found.before, neighbours)
        assert found.after is not None
        np.testing.assert_allclose(found.after.logits.exp().numpy(), z, rtol=0, atol=1e-12)
        assert 2 < iterations < 100


def test_it_stops_at_the_limit_of_iterations_and_within_the_tolerance(
    network: Any, batches: list[Tensor]
) -> None:
    for limits in ({"iterations": 1}, {"iterations": 4}, {"tolerance": 0.01}, {"tolerance": 1e6}):
        (found, *_) = run(Lame(**limits), twin(network), batches)
        z, _ = adapted_by_hand(found.before, **limits)
        assert found.after is not None
        np.testing.assert_allclose(found.after.logits.exp().numpy(), z, rtol=0, atol=1e-12)


def test_an_outlier_of_a_cluster_is_corrected_and_another_cluster_is_left_alone() -> None:
    angles = np.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 1.5, 1.51, 1.52, 1.53, 1.54, 1.55])
    penultimate = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    logits = np.zeros((12, 3))
    logits[:6, 0] = logits[6:, 1] = 3.0
    logits[2] = [1.0, 0.0, 2.0]  # the outlier
    (found,) = run(Lame(), Given(), [given(penultimate, logits)])
    assert found.before.logits.argmax(dim=1).tolist() == [0, 0, 2, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert found.after is not None
    assert found.after.logits.argmax(dim=1).tolist() == [0] * 6 + [1] * 6


def test_an_image_alone_keeps_its_class_and_grows_more_certain(network: Any, batches: list[Tensor]) -> None:
    for image in batches[0]:
        (found,) = run(Lame(), twin(network), [image[None]])
        z, _ = lame_by_hand(found.before.logits.softmax(dim=1).numpy(), np.ones((1, 1)))
        assert found.after is not None
        np.testing.assert_allclose(found.after.logits.exp().numpy(), z, rtol=0, atol=1e-12)
        assert found.after.logits.argmax() == found.before.logits.argmax()
        assert found.after.logits.softmax(dim=1).max() > found.before.logits.softmax(dim=1).max()


def test_features_that_coincide_are_fully_alike_and_others_not_at_all_where_the_width_is_zero() -> None:
    features = torch.tensor([[1.0, 1.0]] * 5 + [[1.0, 0.0]] * 5)
    assert torch.equal(
        affinity(features, neighbours=5), torch.block_diag(torch.ones(5, 5), torch.ones(5, 5)).double()
    )


def test_the_length_of_features_does_not_count(batches: list[Tensor]) -> None:
    features = batches[0].flatten(1)
    lengths = torch.linspace(0.1, 10, 8, dtype=torch.float64)[:, None]
    torch.testing.assert_close(affinity(features, 5), affinity(lengths * features, 5), rtol=0, atol=1e-12)


def test_predictions_of_after_are_scored_and_no_weight_moves(network: Any, batches: list[Tensor]) -> None:
    copied = twin(network)
    for found, images in zip(run(Lame(), copied, batches), batches, strict=True):
        assert found.scored == "after"
        assert (found.updated, found.reset, found.forwards, found.backwards) == (False, False, 8, 0)
        assert torch.equal(found.before.logits, network(images))
        assert found.after is not None
        assert torch.equal(found.after.penultimate, found.before.penultimate)
        assert not found.after.logits.requires_grad
    assert moved(state(network), copied) == set()


def test_a_batch_does_not_depend_on_earlier_ones_nor_its_order_on_itself(
    network: Any, batches: list[Tensor]
) -> None:
    adapter = Lame()
    last = run(adapter, twin(network), batches)[-1].after
    (alone,) = run(adapter, twin(network), batches[-1:])
    (reversed_,) = run(adapter, twin(network), [batches[-1].flip(0)])
    assert last is not None and alone.after is not None and reversed_.after is not None
    assert torch.equal(last.logits, alone.after.logits)
    torch.testing.assert_close(reversed_.after.logits.flip(0), last.logits, rtol=0, atol=1e-12)


def test_single_precision_is_computed_in_double_and_given_back_as_single(batches: list[Tensor]) -> None:
    (found,) = run(Lame(), tiny().float(), [batches[0].float()])
    assert found.after is not None
    assert found.after.logits.dtype == torch.float32
    before = harness.Features(
        logits=found.before.logits.double(), penultimate=found.before.penultimate.double()
    )
    expected = np.log(adapted_by_hand(before)[0]).astype(np.float32)
    np.testing.assert_allclose(found.after.logits.numpy(), expected, rtol=1e-6, atol=0)


def test_classes_without_probability_leave_others_finite() -> None:
    penultimate = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]
    (found,) = run(Lame(), Given(), [given(penultimate, [[0.0, 2000.0], [1500.0, 0.0], [0.0, 1.0]])])
    assert found.after is not None
    assert bool(found.after.logits.isfinite().all())
    assert found.after.logits.argmax(dim=1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"neighbours": 0}, r"neighbours is 0\. Give a whole number of at least 1"),
        ({"iterations": 1.5}, r"iterations is 1\.5\. Give a whole number of at least 1"),
        ({"tolerance": -1.0}, r"tolerance is -1\.0\. Give a number of at least 0"),
        ({"tolerance": float("nan")}, r"tolerance is nan\. Give a number of at least 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.InputError, match=message):
        Lame(**params)
