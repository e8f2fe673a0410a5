"""One model to train: a recipe, resolved against the plugins, with its data and one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.base import code, digests
from harness.base.errors import InputError
from harness.base.seeding import derived_seed
from harness.data.id_data import CHECKED_FOR_OVERLAP
from harness.data.opening import open_dataset
from harness.models.training.assembly import Blueprint, Part, require_usable
from harness.models.training.checkpoint import describe
from harness.models.training.loop import Trained, train
from harness.models.training.settings import autocast_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.contract.protocols import Catalogue
    from harness.contract.selection import Selection
    from harness.contract.specs import Model, TrainingData
    from harness.models.training.recipe import Recipe
    from harness.models.training.state import StateFile

TRAINING_VERSION = 1  # raise it if a module that is not in _DECISIVE changes trained weights
_DECISIVE = (
    "augmentation",
    "loop",
    "network",
    "samples",
    "sets",
    "settings",
)  # modules that determine trained weights


@dataclass(frozen=True, eq=False)
class Training:
    """One model to train: a recipe, resolved against the plugins, with its data and one seed."""

    recipe: Recipe
    data: TrainingData
    seed: int
    catalogue: Catalogue
    device: str = "cpu"

    def __post_init__(self) -> None:
        recipe, classes = self.recipe, self.data.num_classes
        if (recipe.num_outputs or classes) < classes:
            raise InputError(
                f"the recipe {recipe.name!r} has num_outputs = {recipe.num_outputs} for {classes} classes. "
                "Raise it, or leave it out"
            )
        if self.blueprint.needs_auxiliary and recipe.auxiliary is None:
            raise InputError(
                f"the recipe {recipe.name!r} has the objective {recipe.objective!r}, which trains on outliers, "
                'but no [auxiliary]. Add one, for example auxiliary = { dataset = "letters" }'
            )
        if recipe.auxiliary is not None and not self.blueprint.needs_auxiliary:
            raise InputError(
                f"the recipe {recipe.name!r} has [auxiliary] data, which the objective {recipe.objective!r} does "
                "not read. Leave them out, or choose an objective that needs them"
            )
        if recipe.select == "best" and self.data.validation is None:
            raise InputError(
                f"the recipe {recipe.name!r} selects the best epoch on validation data, but there are none. Give "
                '[id] a validation, or write select = "last"'
            )

    @cached_property
    def blueprint(self) -> Blueprint:
        """The network to train."""
        recipe = self.recipe
        return Blueprint(
            Part(recipe.model, recipe.model_params),
            Part(recipe.objective, recipe.objective_params),
            recipe.num_outputs or self.data.num_classes,
            recipe.preprocessing.opened() if recipe.preprocessing else None,
            self.catalogue,
        )

    @property
    def outliers(self) -> tuple[str, ...]:
        """The datasets that the model is trained to reject."""
        return (self.recipe.auxiliary.dataset,) if self.recipe.auxiliary else ()

    @cached_property
    def auxiliary(self) -> Selection | None:
        """The outliers of the recipe's [auxiliary]. Raises InputError if they contain ID training images."""
        table = self.recipe.auxiliary
        if table is None:
            return None
        outliers = open_dataset(
            "auxiliary",
            table.dataset,
            self.catalogue,
            folder=self.recipe.folder,
            split=table.split,
            classes=table.classes,
            limit=table.limit,
            revision=table.revision,
            params=table.params,
        )
        if len(outliers) + len(self.data.train) <= CHECKED_FOR_OVERLAP:
            shared = len(outliers.identities & self.data.train.identities)
            if shared:
                raise InputError(
                    f"[auxiliary] {table.dataset!r} shares {shared} images with ID train. Outliers must not be ID"
                )
        return outliers

    @cached_property
    def digest(self) -> str:
        """Digest of everything that determines the trained weights."""
        validation = self.data.validation
        return digests.digest(
            "training",
            TRAINING_VERSION,
            self.recipe.digest,
            self.data.train.digest,
            validation.digest if validation else "",
            self.auxiliary.digest if self.auxiliary else "",
            self.data.num_classes,
            self.seed,
            self.blueprint.source,
            str(autocast_dtype(self.recipe.precision, self.device)),
            {name: code.code_digest(Path(__file__).with_name(f"{name}.py")) for name in _DECISIVE},
            [".".join(version(library).split(".")[:2]) for library in ("torch", "torchvision", "timm")],
        )

    @property
    def folder_name(self) -> str:
        """The name of the trained model's folder."""
        return f"{self.recipe.name}-s{self.seed}-{self.digest[:16]}"

    def run(
        self,
        *,
        state: StateFile | None = None,
        progress: bool = False,
        on_epoch: Callable[[int, Model], None] | None = None,
    ) -> Trained:
        """Train, or resume from the state file if there is one; `on_epoch` as in `train`."""
        recipe = self.recipe
        model = self.blueprint.build(seed=self.seed, pretrained=recipe.pretrained)
        require_usable(model, self.blueprint)
        return train(
            self.of_its_classes(model),
            self.blueprint.loss(),
            recipe,
            self._taught(),
            auxiliary=self.auxiliary,
            seed=self.seed,
            device=self.device,
            state=state,
            progress=progress,
            on_epoch=on_epoch,
        )

    def _taught(self) -> TrainingData:
        """Return the data with the labels that the model is trained on."""
        if self.recipe.labels == "true":
            return self.data
        train = self.data.train
        shuffler = np.random.default_rng(derived_seed(self.seed, "labels"))
        return replace(self.data, train=replace(train, labels=shuffler.permutation(train.labels)))

    def of_its_classes(self, model: Model) -> Model:
        """Set a model's data and classes to those of the training; it may have more outputs. An encoder keeps 0."""
        trained = replace(model, trained_on=self.data.train.digest)
        if not model.num_classes:
            return trained
        return replace(trained, num_classes=self.data.num_classes, class_names=self.data.class_names)

    def config(self, trained: Trained) -> dict[str, object]:
        """Describe the trained model for its config.json."""
        facts = {
            "recipe": self.recipe.name,
            "recipe_digest": self.recipe.digest,
            "data_digest": self.data.train.digest,
            "training_digest": self.digest,
            "outliers": list(self.outliers),
            "device": self.device,
            "precision": str(autocast_dtype(self.recipe.precision, self.device) or "float32"),
            "threads": trained.threads,
            "seed": self.seed,
            "epoch": trained.epoch,
            "validation_accuracy": trained.validation_accuracy,
            "history": trained.history,
        }
        if self.recipe.labels != "true":
            facts["trained_labels"] = self.recipe.labels
        if trained.model.class_names is not None:
            facts["label_names"] = list(trained.model.class_names)
        return {**describe(self.blueprint, trained.model), **facts}
