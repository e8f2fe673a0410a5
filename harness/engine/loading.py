"""Loads the models that a suite plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.contract.specs import ModelRequest
from harness.models.loaded import LoadedModel

if TYPE_CHECKING:
    from pathlib import Path

    from harness.contract.registry import Registry
    from harness.data.opening import IdData
    from harness.engine.plan import PlannedModel


def load_model(
    model: PlannedModel,
    id_data: IdData,
    registry: Registry,
    *,
    device: str,
    dtype: str,
    store: Path,
    progress: bool = False,
) -> LoadedModel:
    """Build a planned model, or train it where it is trained on first use, and put it on its device.

    Raises:
        InputError: a model of other classes than the suite's. A stranger's model may raise anything else.

    """
    request = ModelRequest(
        name=model.name,
        argument=model.name.partition(":")[2],
        seed=model.seed,
        data=id_data.training,
        device=device,
        store=store,
        progress=progress,
        catalogue=registry,
    )
    built = model.offered.spec.build(request, **model.params)
    if built.num_classes not in (0, id_data.num_classes):  # 0: an encoder fits any
        raise InputError(
            f"the model {model.label!r} knows {built.num_classes} classes, the suite's ID data has "
            f"{id_data.num_classes}. Give a model of the suite's classes, or set [id] classes"
        )
    return LoadedModel(built, device, dtype, model.offered.source)
