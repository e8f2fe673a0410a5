"""The tables of a suite that name its data: ID, OOD and shifted ID."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.base.names import checked_line, checked_name
from harness.base.toml import Table

Name = Annotated[str, AfterValidator(checked_name)]  # of a set or a model, as tables show it
Source = Annotated[
    str, AfterValidator(checked_line)
]  # what is opened: the name of a plugin's offer, or a path
Class = Annotated[int, Field(ge=0)] | str  # a class by its number in the dataset, or by its name
Classes = Annotated[list[Class], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Unreadable = Literal["error", "skip"]  # images that cannot be read: an error, or left out, named and counted


class Part(Table):
    """Samples of the ID data: a split, at most `limit` of it, or a share held out of another part.

    A part may name a dataset of its own; its classes are matched by name to those of the others.
    """

    split: str | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = None
    of: Literal["train", "test"] = "train"  # the part that a share is held out of
    seed: Seed = 0
    dataset: Source | None = None  # None: that of [id]
    params: dict[str, Any] = {}  # of its own dataset


class IdEntry(Table):
    """The in-distribution data."""

    dataset: Source
    test: Part
    train: Part | None = None
    validation: Part | None = None
    classes: Classes | None = None
    restrict: bool = False  # accuracy is over the classes that occur, not over all outputs of the model
    unreadable: Unreadable = "error"
    revision: str | None = None
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _only_validation_is_held_out(self) -> IdEntry:
        for name in ("train", "test"):
            part = getattr(self, name)
            if part is not None and part.holdout is not None:
                raise ValueError(f"{name}.holdout is given, but only validation can be held out")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes {self.classes} name one twice. Give each class once")
        return self

    @model_validator(mode="after")
    def _validation_is_one_of_three(self) -> IdEntry:
        part = self.validation
        if part is None:
            return self
        if part.holdout is not None and (part.split is not None or part.dataset is not None):
            raise ValueError("validation has holdout and a split or dataset. Give only one")
        if part.holdout is None and part.of != "train":
            raise ValueError(f'validation.of = "{part.of}" is given without holdout. Add holdout = 0.1')
        if part.holdout is not None and part.of == "train" and self.train is None:
            raise ValueError(
                "validation.holdout is given without train. Add train = { split = ... }, or hold it out of test "
                'with of = "test"'
            )
        return self

    @property
    def datasets(self) -> list[tuple[str, dict[str, Any]]]:
        """The datasets that its parts are read from, each with its parameters."""
        parts = (self.test, self.train, self.validation)
        own = [(part.dataset, part.params) for part in parts if part is not None and part.dataset]
        return [(self.dataset, self.params), *own]

    @model_validator(mode="after")
    def _parameters_have_a_dataset(self) -> IdEntry:
        for name in ("train", "test", "validation"):
            part = getattr(self, name)
            if part is not None and part.params and part.dataset is None:
                raise ValueError(f"{name}.params is given without {name}.dataset. Give params to [id]")
        return self


class OodEntry(Table):
    """One OOD dataset."""

    name: Name
    dataset: Source
    group: Literal["near", "far"]
    role: Literal["test", "validation"] = "test"
    split: str | None = None
    classes: Classes | None = None
    unreadable: Unreadable = "error"
    limit: Annotated[int, Field(gt=0)] | None = None
    revision: str | None = None
    params: dict[str, Any] = {}


class ShiftEntry(Table):
    """Covariate-shifted ID: corruptions at given severities, or a separate dataset with ID's labels.

    Corruptions are applied to ID test. With `dataset`, they are read from that dataset, by its parameters `corruption`
    and `severity`; severity may be omitted if its files have none.
    """

    corrupt: list[Name] = []
    severity: list[int] = []
    name: Name | None = None
    dataset: Source | None = None
    split: str | None = None
    classes: Classes | None = None  # of `dataset`, that are kept
    restrict: bool = False  # as in [id], for a set of its own
    unreadable: Unreadable = "error"
    limit: Annotated[int, Field(gt=0)] | None = None
    revision: str | None = None
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_three_forms(self) -> ShiftEntry:
        corrupted = self.corrupt and (self.severity or self.dataset) and not self.name
        named = self.name and self.dataset and not (self.corrupt or self.severity)
        if not corrupted and not named:
            raise ValueError(
                "give either corrupt and severity, or name and dataset, or corrupt and dataset, with severity if "
                "its files have severities"
            )
        if not self.dataset and (self.classes or self.restrict or self.unreadable != "error"):
            raise ValueError("classes, restrict and unreadable of ID test are those of [id]. Give them there")
        return self

    @property
    def corrupts_id(self) -> bool:
        """Whether the shift is applied to ID test, so that it can be applied to other images too."""
        return bool(self.corrupt) and not self.dataset
