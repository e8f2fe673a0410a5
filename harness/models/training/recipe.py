"""The keys of a recipe file and their checks: how to train one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

from harness.base.digests import digest
from harness.base.errors import InputError, shortened
from harness.base.paths import beside
from harness.base.toml import Table, parse
from harness.contract.bases import read_based
from harness.contract.preprocessing import Preprocessing
from harness.contract.registry import names_where
from harness.data.tables import IdEntry, Part, Seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.contract.protocols import Catalogue

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]


def _increasing(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError(f"{list(pair)} must be two numbers above 0, the smaller first")
    return pair


Pair = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_increasing)]


class _StrictTable(Table):
    model_config = ConfigDict(strict=True)


class PreprocessingTable(_StrictTable):
    """The recipe's [preprocessing]: the fields of harness.Preprocessing."""

    input_size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    crop_mode: Literal["center", "squash", "border"] = "center"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            self.opened()
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    def opened(self) -> Preprocessing:
        """Return the preprocessing that the table describes."""
        return Preprocessing(**self.model_dump(), source="the recipe")


class AugmentationTable(_StrictTable):
    """The recipe's [augmentation]: a padded crop, and timm's transforms under timm's names."""

    crop_padding: Annotated[int, Field(ge=0)] = 0  # black pixels added on every side before a random crop
    scale: Pair = (1.0, 1.0)  # of the area that a random resized crop keeps
    ratio: Pair = (1.0, 1.0)  # of width to height of that crop
    hflip: Share = 0.0
    vflip: Share = 0.0
    color_jitter: Annotated[float, Field(ge=0)] = 0.0
    auto_augment: str | None = None  # as timm writes it: "rand-m9-mstd0.5", "augmix-m3", "original"
    re_prob: Share = 0.0  # random erasing
    re_mode: Literal["const", "rand", "pixel"] = "const"

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        resizes = (self.scale, self.ratio) != ((1.0, 1.0), (1.0, 1.0))
        if self.scale[1] > 1:
            raise ValueError(f"scale {list(self.scale)} must be shares of the area, at most 1")
        if self.crop_padding and resizes:
            raise ValueError("crop_padding and scale or ratio are two random crops. Give only one")
        return self


class AuxiliaryTable(_StrictTable):
    """The recipe's [auxiliary]: outliers to train on, for objectives that need them."""

    dataset: str
    split: str | None = None
    classes: list[int] | None = None
    limit: PositiveInt | None = None
    revision: str | None = None
    params: dict[str, Any] = {}
    batch_size: PositiveInt | None = None  # None: the recipe's


class Recipe(_StrictTable):
    """How to train one classifier."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str = ""
    model: str
    model_params: dict[str, Any] = {}
    pretrained: bool = False  # start from the architecture's own weights, if it has any
    num_outputs: PositiveInt | None = None  # None: the number of classes of the data
    objective: str  # default: the objective that a plugin marks as default
    objective_params: dict[str, Any] = {}
    optimizer: str = "adam"
    optimizer_params: dict[str, Any] = {}
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "multistep", "poly", "step", "tanh"] = "constant"
    schedule_params: dict[str, Any] = {}
    epochs: PositiveInt
    batch_size: PositiveInt
    labels: Literal["true", "shuffled"] = "true"  # shuffled: of train, among its images, by the seed
    snapshots: PositiveInt | None = None  # keep the weights of every such epoch, of epoch 0 and of the last
    select: Literal["last", "best"] = "last"  # best: the epoch with the highest validation accuracy
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU that supports it
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]  # of `train`; a suite names its own
    preprocessing: PreprocessingTable | None = None  # None: the architecture's own
    augmentation: AugmentationTable | None = None
    auxiliary: AuxiliaryTable | None = None
    data: IdEntry | None = None  # of `train`; a suite gives its [id]
    _folder: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _seeds_are_distinct(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds [{shortened(self.seeds)}] contain a seed twice. Give each once")
        return self

    @property
    def folder(self) -> Path | None:
        """The folder of the recipe's file, in which its relative paths start; None if it was not read from a file."""
        return self._folder

    @property
    def digest(self) -> str:
        """Digest of all keys that affect training; the data and the seed have their own digests."""
        unsaid = {"description", "seeds", "data"}
        later = {key for key, usual in _LATER.items() if getattr(self, key) == usual}
        return digest("recipe", self.model_dump(mode="json", by_alias=True, exclude=unsaid | later))

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The epochs whose weights are kept beside the selected ones, in order; 0 is before the first step."""
        if self.snapshots is None:
            return ()
        return (*range(0, self.epochs, self.snapshots), self.epochs)


# Keys that recipes did not always have: at their defaults they leave the digest as it was, so nothing is trained again.
_LATER = {"labels": "true", "snapshots": None}

_OF_SUITES = frozenset({"seeds", "data"})  # keys of recipes that a suite does not read
_PARTS = {
    "preprocessing": PreprocessingTable.keys(),
    "augmentation": AugmentationTable.keys(),
    "auxiliary": AuxiliaryTable.keys(),
    "data": IdEntry.keys(),
    "train": Part.keys(),
    "validation": Part.keys(),
    "test": Part.keys(),
}


def load_recipe(
    name_or_path: str,
    catalogue: Catalogue,
    *,
    folder: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """Load a recipe by the name that a plugin gave it, or from a TOML file: in `folder`, else in the working folder.

    A recipe with a `base` gives only the keys that differ from the base; a table replaces the whole table of the base.
    `changes` are keys that a suite gives in the same way.

    Raises HarnessError, one line, for a missing recipe, a cycle of bases, and invalid keys or values, with the nearest
    valid key.
    """
    changes = changes or {}
    path = beside(folder, str(catalogue.path("recipe", name_or_path)))
    source = f"{path.name} with the suite's params" if changes else path.name
    if own := sorted(changes.keys() & _OF_SUITES):
        raise InputError(f"{source}: {own[0]} follows from the suite. Remove it from params")
    content = {**read_based(path, "recipe", catalogue, name=name_or_path), **changes}
    defaults = names_where(catalogue, "objective", lambda spec: spec.is_default)
    if "objective" not in content and defaults:
        content["objective"] = defaults[0]
    recipe = parse(Recipe, content, source=source, parts=_PARTS)
    recipe._folder = path.parent
    return recipe
