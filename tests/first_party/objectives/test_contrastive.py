"""InfoNCE and BYOL against their formulas in NumPy, and the network that they put around an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness_plugins.models.networks import cnn
from harness_plugins.objectives.contrastive import BYOL, InfoNCE
from harness_plugins.objectives.views import TwoViews

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(2, 2, 5, 3))  # student and teacher, views, images, dimensions
NO_TARGETS = torch.zeros(5, dtype=torch.int64)


def unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_infonce_tells_each_view_from_all_others(temperature: float) -> None:
    points = unit(OUTPUTS[0].reshape(10, 3))
    losses = []
    for i in range(10):
        partner = (i + 5) % 10
        others = sum(np.exp(points[i] @ points[k] / temperature) for k in range(10) if k != i)
        losses.append(-np.log(np.exp(points[i] @ points[partner] / temperature) / others))
    found = InfoNCE(temperature).loss(torch.from_numpy(OUTPUTS[:1]), NO_TARGETS)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-12)


def test_byol_is_the_squared_distance_of_predictions_to_the_teachers_other_view() -> None:
    (first, second), (first_target, second_target) = unit(OUTPUTS)
    expected = ((first - second_target) ** 2).sum(axis=1).mean() + ((second - first_target) ** 2).sum(
        axis=1
    ).mean()
    assert float(BYOL().loss(torch.from_numpy(OUTPUTS), NO_TARGETS)) == pytest.approx(expected, rel=1e-12)


def test_they_train_encoders_on_two_views() -> None:
    for objective in (InfoNCE(), BYOL()):
        assert isinstance(objective, harness.ViewObjective)
        assert objective.views == 2
        assert isinstance(objective.head(8, 3), nn.Identity)


def network(objective: harness.ViewObjective) -> Any:
    torch.manual_seed(0)
    return objective.around(cnn((1, 8, 8), 2, width=4), 16)


def test_the_student_alone_gives_the_projections_of_both_views() -> None:
    net, images = network(InfoNCE(hidden=6, dim=3)).eval(), torch.rand(10, 1, 8, 8)
    outputs = net(images)
    assert outputs.shape == (1, 2, 5, 3)
    features = net.student.encoder.stages(images).mean(dim=(2, 3))
    linear, norm, _, last = net.student.projector
    expected = last(norm(linear(features)).relu())
    torch.testing.assert_close(outputs[0, 0], expected[:5])
    torch.testing.assert_close(outputs[0, 1], expected[5:])


def test_the_teacher_projects_without_gradient_and_the_student_predicts() -> None:
    net, images = network(BYOL(hidden=6, dim=3)).eval(), torch.rand(10, 1, 8, 8)
    outputs = net(images)
    assert outputs.shape == (2, 2, 5, 3)
    projections = net.student(images)
    torch.testing.assert_close(outputs[1].flatten(0, 1), projections)  # at first they are the same network
    torch.testing.assert_close(outputs[0].flatten(0, 1), net.predictor(projections))
    assert not any(parameter.requires_grad for parameter in net.teacher.parameters())
    assert all(parameter.requires_grad for parameter in net.student.parameters())
    net(images).sum().backward()
    assert all(parameter.grad is None for parameter in net.teacher.parameters())


@pytest.mark.parametrize("ema", [0.0, 0.9, 1.0])
def test_the_teacher_is_the_moving_average_of_the_student(ema: float) -> None:
    net: Any = TwoViews(cnn((1, 8, 8), 2, width=4), 16, hidden=6, dim=3, ema=ema)  # type: ignore[arg-type]
    expected = [parameter.detach().numpy().copy() for parameter in net.student.parameters()]
    for _ in range(3):
        with torch.no_grad():
            for parameter in net.student.parameters():
                parameter.add_(torch.randn_like(parameter))
        net.after_step()
        students = [parameter.detach().numpy() for parameter in net.student.parameters()]
        expected = [ema * own + (1 - ema) * new for own, new in zip(expected, students, strict=True)]
    for own, wanted in zip(net.teacher.parameters(), expected, strict=True):
        np.testing.assert_allclose(own.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (InfoNCE, {"temperature": 0.0}, r"temperature is 0\.0\. Give a number above 0"),
        (InfoNCE, {"hidden": 0}, "hidden is 0. Give a whole number of at least 1"),
        (BYOL, {"dim": 1}, "dim is 1. Give a whole number of at least 2"),
        (BYOL, {"ema": 1.5}, r"ema is 1\.5\. Give a share from 0 to 1"),
        (BYOL, {"ema": float("nan")}, "ema is nan"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(make: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(harness.InputError, match=message):
        make(**params)
