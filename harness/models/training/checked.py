"""Checks the settings of a training before anything is trained: by making everything that they configure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.training.augmentation import Augmentation
from harness.models.training.settings import make_optimizer, make_scheduler, require_known_optimizer

if TYPE_CHECKING:
    from harness.models.training.assembly import Blueprint
    from harness.models.training.recipe import Recipe


def require_trainable(recipe: Recipe, blueprint: Blueprint) -> None:
    """Raise HarnessError for settings that training would refuse. The network is built, and no image is read."""
    require_known_optimizer(recipe)
    model = blueprint.build(seed=0)
    network: Any = model.classifier
    make_scheduler(make_optimizer(network, recipe), recipe, steps=1)
    if recipe.augmentation is not None:
        Augmentation(recipe.augmentation, model.preprocessing)
