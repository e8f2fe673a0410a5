"""Models that are trained on a suite's ID data at first use, and read from the store afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness_plugins.models.recipe_schema import Recipe
    from harness_plugins.models.training import Trained

logger = logging.getLogger("ood_harness")

PACKAGE = Path(__file__).parents[1]


@harness.hookimpl
def harness_models() -> Iterator[harness.ModelSpec]:
    """Offer `recipe:NAME_OR_PATH`, and each packaged recipe by its name."""
    yield harness.ModelSpec("recipe", build_recipe, argument="NAME or PATH")
    for name in packaged_recipes():
        yield harness.ModelSpec(name, build_recipe)


def packaged_recipes() -> dict[str, Path]:
    """Find the packaged recipes by name: in the wheel inside the package, in a checkout under benchmarks/."""
    inside = PACKAGE / "benchmarks" / "recipes"
    folder = inside if inside.is_dir() else PACKAGE.parents[1] / "benchmarks" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def build_recipe(request: harness.ModelRequest) -> harness.Model:
    """Load the recipe's model for the request's data and seed from the store, or train and store it.

    The stored model's name digests all that made it: the recipe, the data, the seed, this package's training
    code and torch's version. Raises HarnessError for an unknown or invalid recipe, or data that do not fit.
    """
    from harness_plugins.models.checkpoints import load_checkpoint, opened
    from harness_plugins.models.recipe_schema import read_recipe

    recipe = read_recipe(recipe_path(request.argument or request.name))
    data = _data_for(recipe, request)
    if request.store is None:
        classifier = opened(_train(recipe, data, request).network, request.device, name=recipe.name)
        return harness.Model(classifier, recipe.preprocessing.opened(), data.num_classes)
    folder = (
        request.store / f"{recipe.name}-s{request.seed}-{training_digest(recipe, data, request.seed)[:16]}"
    )
    if folder.exists():
        try:
            return load_checkpoint(folder, device=request.device)
        except harness.HarnessError as error:
            logger.warning("the stored model is damaged and is trained again: %s", error)
            _discard(folder)
    _store(folder, recipe, data, request)
    return load_checkpoint(folder, device=request.device)


def recipe_path(name: str) -> Path:
    """Find a recipe by the name of a packaged one, or by the path of a TOML file."""
    if name.endswith(".toml"):
        return Path(name).expanduser()
    packaged = packaged_recipes()
    if name not in packaged:
        raise harness.InputError(
            f"{harness.unknown_name('recipe', name, packaged)}, or the path of a .toml file"
        )
    return packaged[name]


def training_digest(recipe: Recipe, data: harness.TrainingData, seed: int) -> str:
    """Digest all that decides the trained weights, in hexadecimal."""
    import torch

    content = {
        "recipe": recipe.digest(),
        "train": data.train.digest,
        "validation": data.validation.digest if data.validation else "",
        "num_classes": data.num_classes,
        "seed": seed,
        "source": _source_digest(),
        "torch": ".".join(torch.__version__.split(".")[:2]),
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _source_digest() -> str:
    here = Path(__file__)
    sources = [here.with_name(f"{module}.py").read_bytes() for module in ("networks", "training")]
    return hashlib.blake2b(b"\0".join(sources), digest_size=16).hexdigest()


def _data_for(recipe: Recipe, request: harness.ModelRequest) -> harness.TrainingData:
    if request.data is None:
        raise harness.InputError(
            f"the recipe {recipe.name!r} trains on ID data, and none was given. "
            "Use it in a suite whose [id] has train"
        )
    if _num_outputs(recipe, request.data) < request.data.num_classes:
        raise harness.InputError(
            f"the recipe {recipe.name!r} has num_outputs = {recipe.num_outputs} for "
            f"{request.data.num_classes} classes. Raise it, or leave it out"
        )
    return request.data


def _num_outputs(recipe: Recipe, data: harness.TrainingData) -> int:
    return recipe.num_outputs or data.num_classes


def _train(recipe: Recipe, data: harness.TrainingData, request: harness.ModelRequest) -> Trained:
    from harness_plugins.models import networks, training

    size, outputs = recipe.preprocessing.input_size, _num_outputs(recipe, data)
    return training.train(
        lambda: networks.build_network(recipe.network, size, outputs, recipe.network_params),
        data,
        recipe.preprocessing.opened(),
        training.Settings(
            optimizer=recipe.optimizer,
            lr=recipe.lr,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            weight_decay=recipe.weight_decay,
            schedule=recipe.schedule,
        ),
        name=recipe.name,
        seed=request.seed,
        device=request.device,
        progress=request.progress,
    )


def _store(folder: Path, recipe: Recipe, data: harness.TrainingData, request: harness.ModelRequest) -> None:
    from harness_plugins.models.checkpoints import own_config, save_checkpoint

    trained = _train(recipe, data, request)
    config = own_config(
        recipe.network,
        recipe.network_params,
        recipe.preprocessing.opened(),
        network=trained.network,
        num_classes=data.num_classes,
    )
    config |= {
        "recipe_digest": recipe.digest(),
        "data_digest": data.train.digest,
        "seed": request.seed,
        "validation_accuracy": trained.validation_accuracy,
    }
    temporary = _beside(folder)
    temporary.mkdir(parents=True)
    try:
        save_checkpoint(temporary, trained.network, config)
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        # Another process stored the same training first; its digest says that it is as good as ours.
        if not folder.is_dir():
            raise
        return
    if os.name == "posix":
        descriptor = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(folder: Path) -> None:
    # Renamed first, so that no other process meets it half removed.
    aside = _beside(folder)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
