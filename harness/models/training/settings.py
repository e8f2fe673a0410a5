"""timm's optimisers and schedules, by timm's names and with timm's parameters."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from harness.base.errors import InputError, one_line, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn
    from torch.optim import Optimizer

    from harness.models.training.recipe import Recipe


def require_known_optimizer(recipe: Recipe) -> None:
    """Raise HarnessError, with the nearest names, if timm does not have the recipe's optimiser."""
    from timm.optim import get_optimizer_info, list_optimizers  # type: ignore[attr-defined]

    valid = [str(name) for name in list_optimizers()]
    if recipe.optimizer not in valid:
        raise unknown_name("optimizer", recipe.optimizer, valid, valid_label="Valid")
    if get_optimizer_info(recipe.optimizer).second_order:
        raise InputError(
            f"the optimizer {recipe.optimizer!r} needs second derivatives, which are not computed here. "
            "Choose another, for example sgd, adam or adamw"
        )


def make_optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    """Make the recipe's optimiser for all parameters, including those of the head."""
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    settings = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, **recipe.optimizer_params}
    with _settings_explained("optimizer", recipe.optimizer, recipe.optimizer_params):
        optimizer: Optimizer = create_optimizer_v2(network, opt=recipe.optimizer, **settings)
    return optimizer


def make_scheduler(optimizer: Optimizer, recipe: Recipe, steps: int) -> Any:
    """Make the recipe's scheduler, stepped after each update; None for a constant rate. `steps` are per epoch."""
    if recipe.schedule == "constant":
        if any("lr_scale" in group for group in optimizer.param_groups):
            raise InputError(
                "layer_decay is applied by a schedule, but the recipe's is constant. Choose another, for example cosine"
            )
        return None
    from timm.scheduler.scheduler_factory import create_scheduler_v2

    with _settings_explained("schedule", recipe.schedule, recipe.schedule_params):
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.schedule,
            num_epochs=recipe.epochs,
            step_on_epochs=False,
            updates_per_epoch=steps,
            **recipe.schedule_params,
        )
    return scheduler


@contextlib.contextmanager
def _settings_explained(kind: str, name: str, params: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (AssertionError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the {kind} {name!r} cannot be made with {kind}_params = {dict(params)}: {one_line(error)}"
        ) from None


def autocast_dtype(precision: str, device: str) -> torch.dtype | None:
    """Return the dtype of the forward pass under autocast; None for the parameters' own dtype."""
    is_gpu = torch.device(device).type == "cuda"
    wanted = precision == "bfloat16" or (
        precision == "auto" and is_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    return torch.bfloat16 if wanted else None
