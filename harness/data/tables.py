"""The tables of a suite that name its data: ID, OOD and shifted ID."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.base.toml import Table


class Part(Table):
    """Samples of the ID dataset: a split, at most `limit` of it, or a share held out of train."""

    split: str | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: int = 0


Class = Annotated[int, Field(ge=0)]


class IdEntry(Table):
    """The in-distribution data."""

    dataset: str
    test: Part
    train: Part | None = None
    validation: Part | None = None
    classes: list[Class] | None = None
    revision: str | None = None
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _only_validation_is_held_out(self) -> IdEntry:
        for name in ("train", "test"):
            part = getattr(self, name)
            if part is not None and part.holdout is not None:
                raise ValueError(f"{name}.holdout is given, but only validation can be held out of train")
        if (
            self.validation is not None
            and self.validation.holdout is not None
            and self.validation.split is not None
        ):
            raise ValueError("validation has both split and holdout. Give only one")
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise ValueError(f"classes {self.classes} are empty or name one twice. Give each class once")
        if self.validation is not None and self.validation.holdout is not None and self.train is None:
            raise ValueError("validation.holdout is given without train. Add train = { split = ... }")
        return self


class OodEntry(Table):
    """One OOD dataset."""

    name: str
    dataset: str
    group: Literal["near", "far"]
    role: Literal["test", "validation"] = "test"
    split: str | None = None
    classes: list[Class] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    revision: str | None = None
    params: dict[str, Any] = {}


class ShiftEntry(Table):
    """Covariate-shifted ID: corruptions at given severities, or a separate dataset with ID's labels.

    Corruptions are applied to ID test. With `dataset`, they are read from that dataset, by its parameters `corruption`
    and `severity`; severity may be omitted if its files have none.
    """

    corrupt: list[str] = []
    severity: list[int] = []
    name: str | None = None
    dataset: str | None = None
    split: str | None = None
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
        return self

    @property
    def corrupts_id(self) -> bool:
        """Whether the shift is applied to ID test, so that it can be applied to other images too."""
        return bool(self.corrupt) and not self.dataset
