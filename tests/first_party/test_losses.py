"""The names of the IsoMax authors' code, against its outputs (tests/golden/isomax.json) and its definition."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness_plugins import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "isomax.json").read_text())
CASES = [case for case in GOLDEN["cases"] if case["kind"] != "softmax"]
PARTS = {
    "isomax": (losses.IsoMaxLossFirstPart, losses.IsoMaxLossSecondPart),
    "isomaxplus": (losses.IsoMaxPlusLossFirstPart, losses.IsoMaxPlusLossSecondPart),
}


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Build features, prototypes and targets as the golden file's conventions say."""
    n, d, classes = GOLDEN["n"], GOLDEN["d"], GOLDEN["C"]
    i, j = np.arange(n)[:, None], np.arange(d)[None, :]
    features = np.sin(0.3 * i * j + 0.2 * i + 0.1 * j + 0.5) + 0.2
    prototypes = np.cos(0.7 * np.arange(classes)[:, None] * j + 0.4 * np.arange(classes)[:, None] + 0.2)
    return torch.from_numpy(features), torch.from_numpy(prototypes), torch.arange(n) % classes


def network_of(case: dict[str, Any], prototypes: torch.Tensor) -> Any:
    first, _ = PARTS[case["kind"]]
    part = first(GOLDEN["d"], GOLDEN["C"], case["temperature"]).double()  # by position, as in the original
    state = {"prototypes": prototypes}
    if case["kind"] == "isomaxplus":
        state["distance_scale"] = torch.tensor([case["distance_scale"]])
    part.load_state_dict(state)  # the original's names of the parameters
    return part


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['distance_scale']}")
def test_both_parts_give_the_logits_the_loss_and_the_detection_score_of_the_original(
    case: dict[str, Any],
) -> None:
    features, prototypes, targets = inputs()
    outputs = network_of(case, prototypes)(features * case["feature_multiplier"])
    criterion = PARTS[case["kind"]][1]()
    np.testing.assert_allclose(outputs.detach().numpy(), case["logits"], rtol=0, atol=1e-9)
    assert criterion(outputs, targets).item() == pytest.approx(case["loss"], abs=1e-9)
    np.testing.assert_allclose(
        outputs.max(dim=1)[0].detach().numpy(), case["scores"]["MDS"], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['distance_scale']}")
def test_debug_returns_the_distances_to_the_own_class_and_to_the_others(case: dict[str, Any]) -> None:
    features, prototypes, targets = inputs()
    outputs = network_of(case, prototypes)(features * case["feature_multiplier"])
    loss, scale, own, others = PARTS[case["kind"]][1]()(outputs, targets, debug=True)
    distances = -np.array(case["logits"])
    rows = range(len(distances))
    assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
    assert scale == 1.0  # whatever the distance scale is: it is in the logits already
    np.testing.assert_allclose(own.detach().numpy(), distances[rows, targets.numpy()], rtol=0, atol=1e-9)
    expected = np.concatenate([np.delete(distances[row], targets[row]) for row in rows])
    np.testing.assert_allclose(others.detach().numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", PARTS)
def test_the_entropic_scale_multiplies_the_logits_of_the_loss_only(kind: str) -> None:
    first, second = PARTS[kind]
    features, _, targets = inputs()
    outputs = first(GOLDEN["d"], GOLDEN["C"]).double()(features)
    p = torch.softmax(3 * outputs, dim=1)[torch.arange(len(targets)), targets]
    assert second(entropic_scale=3.0)(outputs, targets).item() == pytest.approx(-p.log().mean().item())
    assert second(3.0)(outputs, targets).item() == second(entropic_scale=3.0)(outputs, targets).item()


@pytest.mark.parametrize("kind", PARTS)
def test_the_signatures_are_those_of_the_original(kind: str) -> None:
    first, second = PARTS[kind]
    assert [(p.name, p.default) for p in inspect.signature(first).parameters.values()] == [
        ("num_features", inspect.Parameter.empty),
        ("num_classes", inspect.Parameter.empty),
        ("temperature", 1.0),
    ]
    assert [(p.name, p.default) for p in inspect.signature(second).parameters.values()] == [
        ("entropic_scale", 10.0)
    ]
    assert list(inspect.signature(second.forward).parameters) == ["self", "logits", "targets", "debug"]


def test_a_temperature_may_be_set_after_training() -> None:
    part = losses.IsoMaxPlusLossFirstPart(4, 3)
    features = torch.rand(2, 4)
    before = part(features)
    part.temperature = 2.0
    torch.testing.assert_close(part(features), before / 2)


def test_the_loss_stays_finite_where_a_probability_underflows() -> None:
    outputs = torch.tensor([[0.0, -20.0]], requires_grad=True)  # float32: exp(-200) is 0
    loss = losses.IsoMaxLossSecondPart()(outputs, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[pytest.approx(10), pytest.approx(-10)]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.Linear(2, 2), "is given a Linear. Leave the classifier out"),
        (0.0, "entropic_scale is 0.0. Give a number above 0"),
    ],
)
def test_a_wrong_argument_of_the_criterion_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(harness.InputError, match=message) as caught:
        losses.IsoMaxPlusLossSecondPart(given)
    assert "\n" not in str(caught.value)
