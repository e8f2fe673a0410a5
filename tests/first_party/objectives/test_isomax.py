"""Against the outputs of the authors' code (tests/golden/isomax.json), and the formula written out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness_plugins.objectives.isomax import IsoMax, IsoMaxHead, IsoMaxPlus, IsoMaxPlusHead, isomax_loss

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "isomax.json").read_text())
EXACT = {"rtol": 0.0, "atol": 1e-9}
CASES = [case for case in GOLDEN["cases"] if case["kind"] != "softmax"]
OF_SCORE = {"MPS": "msp", "ES": "entropic", "MDS": "min_distance"}  # the authors' are ID-high


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Build features, prototypes and targets as the golden file's conventions say."""
    n, d, classes = GOLDEN["n"], GOLDEN["d"], GOLDEN["C"]
    i, j = np.arange(n)[:, None], np.arange(d)[None, :]
    features = np.sin(0.3 * i * j + 0.2 * i + 0.1 * j + 0.5) + 0.2
    i = np.arange(classes)[:, None]
    prototypes = np.cos(0.7 * i * j + 0.4 * i + 0.2)
    return torch.from_numpy(features), torch.from_numpy(prototypes), torch.arange(n) % classes


def head_of(case: dict[str, Any], prototypes: torch.Tensor) -> IsoMaxHead | IsoMaxPlusHead:
    build = {"isomax": IsoMaxHead, "isomaxplus": IsoMaxPlusHead}[case["kind"]]
    head = build(GOLDEN["d"], GOLDEN["C"], temperature=case["temperature"]).double()
    with torch.no_grad():
        head.prototypes.copy_(prototypes)
        if isinstance(head, IsoMaxPlusHead):
            head.distance_scale.fill_(case["distance_scale"])
    return head


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['distance_scale']}")
def test_logits_loss_gradients_and_scores_are_the_authors(case: dict[str, Any]) -> None:
    features, prototypes, targets = inputs()
    features = (features * case["feature_multiplier"]).requires_grad_()
    head = head_of(case, prototypes)
    logits = head(features)
    loss = isomax_loss(logits, targets)
    loss.backward()

    np.testing.assert_allclose(logits.detach().numpy(), case["logits"], **EXACT)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
    assert features.grad is not None
    assert head.prototypes.grad is not None
    np.testing.assert_allclose(features.grad[0].numpy(), case["grad_features_row0"], **EXACT)
    np.testing.assert_allclose(head.prototypes.grad[0].numpy(), case["grad_prototypes_row0"], **EXACT)
    if isinstance(head, IsoMaxPlusHead):
        assert head.distance_scale.grad is not None
        np.testing.assert_allclose(head.distance_scale.grad.numpy(), case["grad_distance_scale"], **EXACT)
    for theirs, ours in OF_SCORE.items():
        score = harness.scorer(ours).score(harness.Features(logits=logits.detach()))
        np.testing.assert_allclose(-score.numpy(), case["scores"][theirs], **EXACT)


def test_a_negative_distance_scale_gives_the_same_logits_and_the_opposite_gradient() -> None:
    features, prototypes, targets = inputs()
    case = next(case for case in CASES if case["distance_scale"] == 1.0)
    head = head_of({**case, "distance_scale": -1.0}, prototypes)
    logits = head(features)
    isomax_loss(logits, targets).backward()
    np.testing.assert_allclose(logits.detach().numpy(), case["logits"], **EXACT)
    assert isinstance(head, IsoMaxPlusHead)
    assert head.distance_scale.grad is not None
    np.testing.assert_allclose(
        head.distance_scale.grad.numpy(), -np.array(case["grad_distance_scale"]), **EXACT
    )


def test_isomax_starts_with_all_classes_equally_far_and_a_loss_of_ln_c() -> None:
    features, _, targets = inputs()
    head = IsoMaxHead(GOLDEN["d"], GOLDEN["C"]).double()
    golden = GOLDEN["isomax_at_init_zero_prototypes"]
    logits = head(features)
    np.testing.assert_allclose(logits[0].detach().numpy(), golden["logits_row0"], **EXACT)
    assert isomax_loss(logits, targets).item() == pytest.approx(golden["loss"], abs=1e-9)
    assert golden["loss"] == pytest.approx(math.log(GOLDEN["C"]), abs=1e-12)


def test_a_feature_that_lies_on_a_prototype_has_a_gradient_of_zero() -> None:
    features = torch.zeros(2, GOLDEN["d"], dtype=torch.float64, requires_grad=True)
    head = IsoMaxHead(GOLDEN["d"], GOLDEN["C"]).double()
    isomax_loss(head(features), torch.tensor([0, 1])).backward()
    assert features.grad is not None
    assert features.grad.tolist() == GOLDEN["isomax_zero_feature_grad"]
    plus = IsoMaxPlusHead(GOLDEN["d"], GOLDEN["C"]).double()
    features = torch.zeros(2, GOLDEN["d"], dtype=torch.float64, requires_grad=True)
    isomax_loss(plus(features), torch.tensor([0, 1])).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


def test_isomax_plus_starts_with_standard_normal_prototypes_and_a_scale_of_one() -> None:
    with harness.seeded(0):
        head = IsoMaxPlusHead(400, 100)
    assert head.prototypes.mean().item() == pytest.approx(0, abs=0.02)
    assert head.prototypes.std().item() == pytest.approx(1, abs=0.02)
    assert head.distance_scale.tolist() == [1.0]
    assert {name for name, _ in head.named_parameters()} == {"prototypes", "distance_scale"}
    assert {name for name, _ in IsoMaxHead(4, 3).named_parameters()} == {"prototypes"}


def test_gradients_agree_with_finite_differences() -> None:
    features, prototypes, _ = inputs()
    for case in CASES:
        head = head_of(case, prototypes)
        assert torch.autograd.gradcheck(head, (features.clone().requires_grad_(),))


def test_small_distances_keep_their_digits_in_float32() -> None:
    features = torch.full((1, 64), 100.0)
    head = IsoMaxHead(64, 1)
    with torch.no_grad():
        head.prototypes.copy_(features + 1e-3)
    expected = np.linalg.norm((features - (features + 1e-3)).double().numpy())
    assert -head(features).item() == pytest.approx(float(expected), rel=1e-5)


def test_the_head_computes_in_float32_under_autocast() -> None:
    features = torch.randn(4, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert IsoMaxHead(8, 3)(features).dtype == torch.float32
        assert IsoMaxPlusHead(8, 3)(features).dtype == torch.float32


def test_an_objective_builds_its_head_and_scales_its_loss() -> None:
    features, _, targets = inputs()
    for objective, kind in (
        (IsoMax(entropic_scale=3.0), IsoMaxHead),
        (IsoMaxPlus(temperature=2.0), IsoMaxPlusHead),
    ):
        assert isinstance(objective, harness.Objective)
        head = objective.head(GOLDEN["d"], GOLDEN["C"])
        assert isinstance(head, kind)
        logits = head.double()(features)
        log_p = torch.log_softmax(objective.entropic_scale * logits, dim=1)
        expected = -log_p[torch.arange(len(targets)), targets].mean()
        assert objective.loss(logits, targets).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize(
    "params", [{"entropic_scale": 0.0}, {"temperature": -1.0}, {"temperature": math.nan}]
)
def test_hyperparameters_out_of_range_are_refused(params: dict[str, float]) -> None:
    with pytest.raises(harness.InputError, match="Give a number above 0"):
        IsoMaxPlus(**params)


@pytest.mark.parametrize("name", ["msp", "entropic", "min_distance"])
@pytest.mark.parametrize("scale", [0.0, 1e-300, 1.0, 800.0, 1e300])
def test_the_scores_are_never_nan(name: str, scale: float) -> None:
    logits = -scale * torch.linspace(0, 1, 40, dtype=torch.float64).reshape(8, 5)
    assert torch.isfinite(harness.scorer(name).score(harness.Features(logits=logits))).all()
