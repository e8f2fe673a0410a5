"""Loads the models of a plan, and opens a workbench for each."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError, InputError, describe, one_line
from harness.base.strangers import RAISED, undisturbed
from harness.contract.scores import as_facts
from harness.contract.specs import ModelRequest
from harness.engine.clock import Clock
from harness.engine.workbench import Workbench
from harness.models.classes import matched
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.base.cache import Cache
    from harness.contract.registry import Registry
    from harness.contract.specs import Model
    from harness.data.id_data import IdData
    from harness.engine.plan import Plan, PlannedModel
    from harness.engine.sets import OpenSets

logger = logging.getLogger("ood_harness")


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

        Its outputs are put in the order of the data's classes. Raises InputError for a model that lacks a class of the
        ID data, or whose classes cannot be matched to them. A stranger's model may raise anything else.
        """
        with undisturbed(self.device):
            made = model.offered.spec.build(self._request(model, id_data), **model.params)
        with undisturbed(self.device):  # it is examined in the state in which it will be forwarded
            built, classes = _opened(model, made, id_data)
            _warn_of_assumed(model, built)
            loaded = LoadedModel(built, self.device, dtype, model.offered.source, classes)
            _require_repeatable(model, loaded)
            return loaded

    def check(self, model: PlannedModel, id_data: IdData) -> None:
        """Raise HarnessError for a model that cannot be built, as far as its plugin can tell without training it."""
        check = model.offered.spec.check
        if check is None:
            return
        try:
            built = check(self._request(model, id_data), **model.params)
            if built is not None:
                _opened(model, built, id_data)
        except HarnessError as error:
            told, subject = str(error), f"the model {model.label!r}"
            raise type(error)(told if told.startswith(subject) else f"{subject}: {told}") from None
        except RAISED as error:
            raise InputError(
                f"the model {model.label!r}: its plugin's check raised {describe(error)}"
            ) from error

    def _request(self, model: PlannedModel, id_data: IdData | None) -> ModelRequest:
        return ModelRequest(
            name=model.name,
            argument=model.name.partition(":")[2],
            seed=model.seed,
            data=id_data.training if id_data is not None else None,
            device=self.device,
            store=self.cache.models,
            progress=self.progress,
            catalogue=self.registry,
            preprocessing=model.preprocessing.values if model.preprocessing else {},
            folder=model.folder,
            epoch=model.epoch,
        )

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
            is_labelled=data.is_labelled,
            extracts_layers=any("layers" in worker.needs for worker in applicable),
            progress=self.progress,
            isolation=suite.limits.isolation,
        )


def _opened(model: PlannedModel, built: Model, id_data: IdData | None) -> tuple[Model, Mapping[str, object]]:
    """Apply the preprocessing that the suite states, and match the classes to the data's; return how, too.

    Raises InputError for weights that cannot be computed with, such as NaN.
    """
    from harness.models.soundness import require_sound

    network: Any = built.classifier
    require_sound(network)
    try:
        as_facts(built.facts)
    except ValueError as error:
        raise InputError(f"its facts cannot be written as JSON: {one_line(error)}") from None
    if model.preprocessing is not None:
        built = replace(built, preprocessing=model.preprocessing.over(built.preprocessing))
    is_classifier = built.num_classes > 0  # an encoder fits any data
    if id_data is None or not id_data.is_labelled or not is_classifier:
        return built, {}
    return matched(built, id_data.classes, label=model.label, class_map=model.class_map)


def _require_repeatable(model: PlannedModel, loaded: LoadedModel) -> None:
    """Refuse a random model, and warn of one whose outputs for an image depend on the rest of its batch."""
    from harness.models.heads import depends_on_batch, probe, require_repeatable

    images, pre_logits = probe(loaded.model.preprocessing, loaded.device), not loaded.model.num_classes
    require_repeatable(loaded.module, images, pre_logits=pre_logits)
    if depends_on_batch(loaded.module, images, pre_logits=pre_logits):
        logger.warning(
            "%s: its output for an image depends on the other images of the batch, so that its numbers change with "
            "batch_size and with the order of images. Let its normalisation use stored statistics",
            model.title,
        )


def _warn_of_assumed(model: PlannedModel, built: Model) -> None:
    own = built.preprocessing
    if own.assumed:
        logger.warning(
            "%s: nothing states %s of its preprocessing, so defaults are used: %s. If it was trained otherwise, its "
            "numbers are wrong: state it with preprocessing = { ... } in [[models]]",
            model.title,
            ", ".join(own.assumed),
            own.text,
        )
