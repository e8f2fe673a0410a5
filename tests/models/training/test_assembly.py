from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness.contract.registry import Registry
from harness.models.training.assembly import Blueprint, Part, replace_classifier, require_usable

GREY = harness.Preprocessing((1, 32, 32), mean=(0.2,), std=(0.3,))


def blueprint(model: str, objective: str, catalogue: Registry, **params: Any) -> Blueprint:
    return Blueprint(Part(model, params), Part(objective, {}), 6, GREY, catalogue)


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_vit",
        "test_convnext",
        "test_efficientnet",
        "test_byobnet",
        "mobilenetv3_small_050",
        "densenet121",
    ],
)
def test_any_timm_classifier_is_replaced_wherever_it_is(catalogue: Registry, name: str) -> None:
    model: Any = blueprint(f"timm:{name}", "isomaxplus", catalogue).build(seed=0).classifier
    head = model.get_classifier()
    assert type(head).__name__ == "IsoMaxPlusHead"
    images = torch.rand(2, 1, 32, 32)
    model.eval()
    with torch.inference_mode():
        features = model.forward_features(images)
        penultimate = model.forward_head(features, pre_logits=True)
        assert penultimate.shape[1] == head.num_features
        logits = model(images)
    assert logits.shape == (2, 6)
    assert torch.equal(head(penultimate), logits)
    assert not any(isinstance(m, nn.Linear) and m.out_features == 6 for m in model.modules())


def test_an_objective_without_a_head_keeps_the_networks_own(catalogue: Registry) -> None:
    kept: Any = blueprint("cnn", "cross_entropy", catalogue, width=4).build(seed=0).classifier
    assert isinstance(kept.get_classifier(), nn.Linear)
    assert kept.get_classifier().out_features == 6


def test_building_repeats_and_leaves_no_trace(catalogue: Registry) -> None:
    before = torch.random.get_rng_state()

    def weights(seed: int) -> list[bytes]:
        model: Any = blueprint("cnn", "isomaxplus", catalogue, width=4).build(seed=seed).classifier
        return [value.numpy().tobytes() for value in model.state_dict().values()]

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_objective_changes_the_head_and_nothing_else(catalogue: Registry) -> None:
    plain, distance = (
        blueprint("cnn", name, catalogue, width=4).build(seed=5).classifier
        for name in ("cross_entropy", "isomax")
    )
    ours, theirs = ({k: v for k, v in m.state_dict().items() if "fc" not in k} for m in (plain, distance))  # type: ignore[attr-defined]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_preprocessing_is_the_architectures_own_where_the_recipe_states_none(catalogue: Registry) -> None:
    own = Blueprint(Part("timm:test_resnet", {}), Part("isomax", {}), 6, None, catalogue).build(seed=0)
    assert own.preprocessing.input_size == (3, 160, 160)
    assert own.preprocessing.mean == (0.5, 0.5, 0.5)


def test_the_source_digest_names_the_code_of_both_parts(catalogue: Registry) -> None:
    sources = {
        blueprint(model, objective, catalogue).source
        for model in ("cnn", "resnet-cifar")
        for objective in ("cross_entropy", "isomax")
    }
    assert len(sources) == 4
    assert blueprint("cnn", "isomax", catalogue).source == blueprint("mlp", "isomaxplus", catalogue).source, (
        "networks of one module, and objectives of one module, share their code"
    )


def test_a_model_without_one_linear_classifier_is_refused() -> None:
    class Two(nn.Module):
        def get_classifier(self) -> tuple[nn.Module, nn.Module]:
            return nn.Linear(2, 2), nn.Linear(2, 2)

    with pytest.raises(harness.InputError, match="'two' ends in tuple, not in one linear layer"):
        replace_classifier(Two(), nn.Identity(), name="two")


def test_a_network_that_adds_to_its_heads_logits_is_refused(catalogue: Registry) -> None:
    plan = blueprint("cnn", "isomax", catalogue, width=4)
    model = plan.build(seed=0)
    require_usable(model, plan)
    network: Any = model.classifier
    original = network.forward_head
    network.forward_head = lambda features, pre_logits=False: (
        original(features, pre_logits) + (0 if pre_logits else 1)
    )
    with pytest.raises(
        harness.InputError, match="'cnn' are not the output of its classifier for the penultimate"
    ):
        require_usable(model, plan)


def test_images_that_are_too_small_for_a_network_are_told_before_training(catalogue: Registry) -> None:
    small = harness.Preprocessing((1, 8, 8))
    plan = Blueprint(Part("timm:test_convnext", {}), Part("isomax", {}), 6, small, catalogue)
    with pytest.raises(
        harness.InputError, match=r"'timm:test_convnext' cannot forward images of \(1, 8, 8\)"
    ):
        require_usable(plan.build(seed=0), plan)


def test_the_head_of_a_timm_model_is_not_drawn_from_the_networks_own_numbers(catalogue: Registry) -> None:
    model: Any = blueprint("timm:test_resnet", "isomaxplus", catalogue).build(seed=3).classifier
    with harness.seeded(3):
        first = torch.randn(6, model.get_classifier().num_features)
    assert not torch.equal(model.get_classifier().prototypes.detach(), first)
