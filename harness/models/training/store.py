"""Trained models, stored by the digest of their training: loaded if they were trained before, else trained."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.base.cache import beside, removed, sync
from harness.base.errors import HarnessError, InputError
from harness.contract.registry import Registry
from harness.data.opening import open_id, training_data
from harness.models.training.checked import require_trainable
from harness.models.training.checkpoint import (
    EPOCHS,
    FACTS,
    load_checkpoint,
    opened,
    save_checkpoint,
)
from harness.models.training.loop import DivergedError, Trained
from harness.models.training.recipe import load_recipe
from harness.models.training.snapshots import Snapshots, require_kept
from harness.models.training.state import StateFile
from harness.models.training.training import Training
from harness.models.training.weights import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.contract.protocols import Catalogue
    from harness.contract.specs import Model, ModelRequest, TrainingData
    from harness.models.training.recipe import Recipe

logger = logging.getLogger("ood_harness")

_STATE = "state.safetensors"


def recipe_data(recipe: Recipe, catalogue: Catalogue) -> TrainingData:
    """Open the recipe's own [data]. The test part is opened only to check that no test image is trained on."""
    if recipe.data is None:
        raise InputError(
            f"the recipe {recipe.name!r} trains on ID data, but none were given. Use it in a suite whose [id] has "
            "train, name a suite (train --suite NAME), or give the recipe [data]"
        )
    return training_data(open_id(recipe.data, catalogue, folder=recipe.folder), recipe.data.dataset)


def build_recipe(name_or_path: str, request: ModelRequest, **changes: Any) -> Model:
    """Load the recipe's model for the request's data and seed from its store, or train it and store it.

    The stored model's name contains a digest of the recipe, the data, the seed, the code of the network, of the
    objective and of the training loop, and the versions of torch and timm. Without a store nothing is saved. `changes`
    are keys of the recipe with other values, such as `epochs=3`.

    Raises HarnessError for an unknown or invalid recipe, for data that do not fit it, and for an epoch that it does not
    keep.
    """
    training = _training(name_or_path, request, changes)
    epoch = request.epoch
    if epoch is not None:
        kept = training.recipe.kept_epochs if request.store is not None else ()
        require_kept(epoch, kept, recipe=training.recipe.name)
    if request.store is None:
        return unkept_model(training, progress=request.progress)
    folder = request.store / training.folder_name
    return kept_model(training, folder, progress=request.progress, epoch=epoch)


def recipe_epochs(name_or_path: str, request: ModelRequest, **changes: Any) -> tuple[int, ...]:
    """Return the epochs of which `build_recipe` can load the weights, in order. No data are opened."""
    catalogue = request.catalogue or Registry.load()
    return load_recipe(name_or_path, catalogue, folder=request.folder, changes=changes).kept_epochs


def check_recipe(name_or_path: str, request: ModelRequest, **changes: Any) -> None:
    """Raise HarnessError if `build_recipe` would refuse the recipe, its settings, its outliers or its data."""
    training = _training(name_or_path, request, changes)
    _ = training.auxiliary
    require_trainable(training.recipe, training.blueprint)


def untrained_model(name_or_path: str, request: ModelRequest, **changes: Any) -> Model:
    """Build the recipe's network with random weights: it costs what the trained one costs. Raises as build_recipe."""
    training = _training(name_or_path, request, changes)
    return training.of_its_classes(training.blueprint.build(seed=request.seed))


def _training(name_or_path: str, request: ModelRequest, changes: Mapping[str, Any]) -> Training:
    catalogue = request.catalogue or Registry.load()
    recipe = load_recipe(name_or_path, catalogue, folder=request.folder, changes=changes)
    if request.data is None:  # the recipe's own [data] may be this suite's test data
        raise InputError(
            f"the recipe {recipe.name!r} trains on ID data, and the suite's [id] has no train part with labels. "
            "Add train = { split = ... }"
        )
    return Training(recipe, request.data, request.seed, catalogue, request.device)


def kept_model(
    training: Training, folder: Path, *, progress: bool = False, epoch: int | None = None
) -> Model:
    """Load the folder's model, after an epoch or as selected, or train it first. A damaged model is trained again."""
    load = partial(load_checkpoint, folder, catalogue=training.catalogue, device=training.device, epoch=epoch)
    if folder.exists():
        with contextlib.suppress(OSError):
            os.utime(folder)  # so that it counts as recently used
        try:
            model = load()
            _clear(folder, training)  # of what a process left that was killed after it stored the model
            return training.of_its_classes(model)  # the names may have been unknown when it was stored
        except UnreadableError:  # maybe a temporary fault of the disk: do not delete the model
            raise
        except HarnessError as error:
            logger.warning("the stored model is damaged and is trained again: %s", error)
            removed(folder)
    _train_into(folder, training, progress=progress)
    return load()


def unkept_model(training: Training, *, progress: bool = False) -> Model:
    """Train a model without storing it."""
    trained = training.run(progress=progress)
    config = training.config(trained)
    return replace(
        trained.model,
        classifier=opened(trained.model.classifier, training.device, name=training.recipe.name),
        facts={key: config[key] for key in FACTS},
        outliers=training.outliers,
    )


def _train_into(folder: Path, training: Training, *, progress: bool) -> None:
    state, snapshots = _state_of(folder), _snapshots_of(folder, training)
    try:
        trained = training.run(state=state, progress=progress, on_epoch=snapshots.keep)
    except DivergedError as error:
        message = f"{error}. {_keep_last_good(folder, training, error)}"
        raise DivergedError(message, error.weights, error.epoch) from None
    _write(folder, trained.model, training.config(trained), snapshots)
    _clear(folder, training)


def _state_of(folder: Path) -> StateFile:
    return StateFile(folder.with_name(f".{folder.name}.training") / _STATE)


def _snapshots_of(folder: Path, training: Training) -> Snapshots:
    return Snapshots(_state_of(folder).path.parent, training.recipe.kept_epochs)


def _clear(folder: Path, training: Training) -> None:
    _snapshots_of(folder, training).remove()
    _state_of(folder).remove()


def _keep_last_good(folder: Path, training: Training, error: DivergedError) -> str:
    """Store the weights of the last epoch with finite weights, in a folder beside that of the model."""
    if error.weights is None:
        return "No epoch was completed before, so nothing is kept"
    kept = folder.with_name(f"{folder.name}-diverged")
    model = training.of_its_classes(training.blueprint.build(seed=training.seed))
    classifier = opened(model.classifier, "cpu", name=training.recipe.name)
    classifier.load_state_dict(error.weights)
    config = {**training.config(Trained(model, error.epoch, None, [])), "diverged": str(error)}
    if kept.exists():
        removed(kept)
    _write(kept, model, config)
    return f"The last good weights, of epoch {error.epoch}, are kept in {kept}"


def _write(folder: Path, model: Model, config: dict[str, object], snapshots: Snapshots | None = None) -> None:
    temporary = beside(folder)
    temporary.mkdir(parents=True)
    try:
        if snapshots is not None and snapshots.epochs:
            config = config | {EPOCHS: snapshots.copy_into(temporary)}
        save_checkpoint(temporary, opened(model.classifier, "cpu", name=folder.name), config)
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process stored the same training first. Its digest is equal, so its model is too.
        if not folder.is_dir():
            raise
        return
    if os.name == "posix":
        sync(folder.parent)
