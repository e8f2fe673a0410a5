"""Loads the models of a plan, and opens a workbench for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.contract.specs import ModelRequest
from harness.engine.clock import Clock
from harness.engine.workbench import Workbench
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel

if TYPE_CHECKING:
    from harness.base.cache import Cache
    from harness.contract.registry import Registry
    from harness.data.opening import IdData
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.sets import OpenSets


@dataclass(frozen=True, eq=False)
class Loader:
    """Loads models onto one device; trained models and features come from the cache, if it holds them."""

    registry: Registry
    cache: Cache
    device: str
    progress: bool = False
    counts: Counts = field(default_factory=Counts)

    def load(self, model: PlannedModel, id_data: IdData | None, *, dtype: str = "float32") -> LoadedModel:
        """Build a model, or train it if it is trained on first use, and put it on the device.

        Raises InputError for a model with other classes than the ID data. A stranger's model may raise anything else.
        """
        request = ModelRequest(
            name=model.name,
            argument=model.name.partition(":")[2],
            seed=model.seed,
            data=id_data.training if id_data is not None else None,
            device=self.device,
            store=self.cache.models,
            progress=self.progress,
            catalogue=self.registry,
        )
        built = model.offered.spec.build(request, **model.params)
        is_classifier = built.num_classes > 0  # an encoder fits any data
        if id_data is not None and is_classifier and built.num_classes != id_data.num_classes:
            raise InputError(
                f"the model {model.label!r} has {built.num_classes} classes, the suite's ID data have "
                f"{id_data.num_classes}. Give a model of the suite's classes, or set [id] classes"
            )
        return LoadedModel(built, self.device, dtype, model.offered.source)

    def bench(self, plan: Plan, model: PlannedModel, sets: OpenSets) -> Workbench:
        """Load a model of a plan, with the tools that its evaluations share. Raises as `load` does."""
        data, suite = sets.id_data, plan.suite
        loaded = self.load(model, data, dtype=suite.dtype)
        offers = loaded.offers | data.offers
        applicable = (w for of_key in plan.workers.values() for w in of_key if w.needs <= offers)
        return Workbench(
            model.label,
            loaded,
            data.parts,
            suite.batch_size,
            self.cache,
            self.counts,
            Clock(self.device),
            extracts_layers=any("layers" in worker.needs for worker in applicable),
            progress=self.progress,
        )
