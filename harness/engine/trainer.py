"""Trains a recipe with several seeds. Each model is stored at once, and found again by its digest."""

from __future__ import annotations

import json
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.cache import Cache, default_root
from harness.base.errors import InputError, shortened
from harness.contract.registry import Registry
from harness.data.opening import open_id, training_data
from harness.engine.suite import load_id
from harness.models.loaded import resolve_device
from harness.models.training.checked import require_trainable
from harness.models.training.checkpoint import CONFIG
from harness.models.training.loop import DivergedError
from harness.models.training.recipe import load_recipe
from harness.models.training.store import kept_model, recipe_data
from harness.models.training.training import Training

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from harness.contract.specs import TrainingData


@dataclass(frozen=True)
class TrainOptions:
    """How a recipe is trained. Only the seeds and the suite change a weight."""

    suite: str | None = None  # its [id] is the training data; None: the recipe's [data]
    seeds: Sequence[int] = ()  # () : the recipe's
    out: Path | None = None  # None: the cache, where suites look for the model
    cache: Path | None = None
    device: str = "auto"
    progress: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of one seed."""

    recipe: str
    seed: int
    folder: Path
    found: bool = False  # trained before
    epoch: int | None = None  # of the kept weights
    validation_accuracy: float | None = None
    error: str | None = None  # if the training diverged


def train_recipe(
    name_or_path: str, options: TrainOptions, *, plugins: Sequence[Path] = ()
) -> Iterator[Outcome]:
    """Train the recipe for each seed, one after the other, and yield the outcomes.

    A training that diverges is an outcome with an error, and the next seed goes on. Raises HarnessError for an invalid
    recipe, suite or dataset, before anything is trained.
    """
    registry = Registry.load(plugins)
    recipe = load_recipe(name_or_path, registry)
    device = resolve_device(options.device)
    in_use: AbstractContextManager[None] = nullcontext()
    if options.out is not None:
        store = _writable(options.out)
    else:
        cache = Cache(options.cache or default_root())
        store, in_use = cache.models, cache.in_use()
    seeds = list(options.seeds) or recipe.seeds
    if len(set(seeds)) < len(seeds):
        raise InputError(f"the seeds [{shortened(seeds)}] contain a seed twice. Give each once")
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise InputError(f"the seeds [{shortened(seeds)}] are not all from 0 to 2^63 - 1. Give other seeds")
    data = _suite_data(options.suite, registry) if options.suite else recipe_data(recipe, registry)
    trainings = [Training(recipe, data, seed, registry, device) for seed in seeds]
    _ = trainings[0].auxiliary
    require_trainable(recipe, trainings[0].blueprint)
    with in_use:
        for training in trainings:
            yield _train(training, store, progress=options.progress)


def _suite_data(suite: str, registry: Registry) -> TrainingData:
    entry = load_id(suite, registry)
    return training_data(open_id(entry, registry, folder=registry.path("suite", suite).parent), entry.dataset)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InputError(
            f"the folder {str(folder)!r} cannot be written: {error.strerror}. Name another with --out"
        ) from None


def _train(training: Training, store: Path, *, progress: bool) -> Outcome:
    recipe, seed, folder = training.recipe, training.seed, store / training.folder_name
    found = folder.exists()
    try:
        kept_model(training, folder, progress=progress)
    except DivergedError as error:
        return Outcome(recipe.name, seed, folder, error=str(error))
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return Outcome(recipe.name, seed, folder, found, config["epoch"], config["validation_accuracy"])
