"""The data of a training: labelled images, validation images to select an epoch, and outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.errors import InputError
from harness.base.seeding import derived_seed
from harness.models.training.augmentation import Augmentation
from harness.models.training.samples import Samples, require_labels, shuffled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from harness.contract.selection import Selection
    from harness.contract.specs import Model, TrainingData
    from harness.models.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Sets:
    """The samples of one training, checked against its recipe."""

    train: Samples
    validation: Samples | None  # None also for an encoder, which has no accuracy
    outliers: Samples | None
    outlier_batch_size: int
    views: int
    seed: int

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        data: TrainingData,
        auxiliary: Selection | None,
        model: Model,
        *,
        views: int = 1,
        seed: int,
        device: str,
    ) -> Sets:
        """Open the training, validation and auxiliary data. Raises InputError if the recipe cannot use them."""
        is_validated = data.validation is not None and model.num_classes > 0
        if recipe.select == "best" and not is_validated:
            raise InputError(_no_best(recipe, model))
        if views > 1:
            _require_views(recipe, auxiliary)
        preprocessing = model.preprocessing
        augmentation = Augmentation(recipe.augmentation, preprocessing) if recipe.augmentation else None

        def opened(selection: Selection, what: str) -> Samples:
            changes, own = (None, 0) if what == "validation" else (augmentation, derived_seed(seed, what))
            return Samples.of(selection, preprocessing, augmentation=changes, seed=own, device=device)

        train = opened(data.train, "train")
        require_labels(train, data.num_classes)
        validation = opened(data.validation, "validation") if data.validation and is_validated else None
        outliers = opened(auxiliary, "outliers") if auxiliary else None
        table = recipe.auxiliary
        size = (table.batch_size if table else None) or recipe.batch_size
        return cls(train, validation, outliers, size, views, seed)

    def outlier_batches(self, step: int, count: int) -> Iterator[Tensor | None]:
        """Yield outlier batches for `count` steps from number `step` on, cycling through the set."""
        outliers = self.outliers
        if outliers is None:
            yield from [None] * count
            return
        size = min(self.outlier_batch_size, len(outliers))
        rounds = len(outliers) // size  # whole batches only
        while count > 0:
            number, done = divmod(step, rounds)
            order = shuffled(len(outliers), size, self.seed, "outliers", number)[
                done : min(rounds, done + count)
            ]
            yield from outliers.batches(order, epoch=number)
            step, count = step + len(order), count - len(order)


def _no_best(recipe: Recipe, model: Model) -> str:
    if not model.num_classes:
        return (
            f"the recipe {recipe.name!r} selects the best epoch by validation accuracy, and the objective "
            f'{recipe.objective!r} trains an encoder, which has no accuracy. Write select = "last"'
        )
    return (
        f"the recipe {recipe.name!r} selects the best epoch on validation data, but there are none. Give "
        '[id] a validation, or write select = "last"'
    )


def _require_views(recipe: Recipe, auxiliary: Selection | None) -> None:
    if recipe.augmentation is None:
        raise InputError(
            f"the recipe {recipe.name!r} has the objective {recipe.objective!r}, which compares augmented views of "
            "an image, but no [augmentation]. Add one, for example augmentation = { scale = [0.3, 1.0], hflip = 0.5 }"
        )
    if auxiliary is not None:
        raise InputError(
            f"the recipe {recipe.name!r} has [auxiliary] data, but the objective {recipe.objective!r} compares views. "
            "Leave them out"
        )
