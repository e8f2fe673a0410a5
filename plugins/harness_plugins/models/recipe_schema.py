"""What a recipe file may say, checked key by key."""

from __future__ import annotations

import hashlib
import json
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import harness

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

PositiveInt = Annotated[int, Field(ge=1)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PreprocessingTable(_Table):
    """The recipe's [preprocessing]: the fields of harness.Preprocessing."""

    input_size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    crop_mode: Literal["center", "squash", "border"] = "center"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if min(self.std, default=1.0) <= 0:
            raise ValueError(f"std {list(self.std)} must be above 0")
        try:
            self.opened()
        except harness.InputError as error:
            raise ValueError(str(error)) from None
        return self

    def opened(self) -> harness.Preprocessing:
        """Return the preprocessing that the table describes."""
        return harness.Preprocessing(**self.model_dump())


class Recipe(_Table):
    """How to train one small classifier."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str
    network: str
    network_params: dict[str, Any] = Field(default_factory=dict)
    num_outputs: PositiveInt | None = None  # None: as many as the data has classes
    preprocessing: PreprocessingTable
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    epochs: PositiveInt
    batch_size: PositiveInt
    schedule: Literal["constant", "cosine"] = "constant"

    def digest(self) -> str:
        """Return what the recipe says, in hexadecimal; the description says nothing to the trainer."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"description"})
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raise InputError, one line, for what is not valid, with the nearest valid key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise harness.InputError(f"cannot read the recipe {path}: {error.strerror}. Check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise harness.InputError(f"the recipe {path} is not valid TOML: {error}") from None
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise harness.InputError(f"the recipe {path}: {_first_fault(error.errors())}") from None


def _first_fault(errors: list[ErrorDetails]) -> str:
    # An unknown key explains the missing one that it was meant to be, so it comes first.
    fault = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    location = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        table = PreprocessingTable if location[0] == "preprocessing" and len(location) > 1 else Recipe
        valid = [field.alias or name for name, field in table.model_fields.items()]
        where = "key in [preprocessing]" if table is PreprocessingTable else "key"
        return str(harness.unknown_name(where, location[-1], valid, valid_label="Valid"))
    if fault["type"] == "missing":
        return f"the key {'.'.join(location)!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if not location or isinstance(fault["input"], dict):
        return f"{'.'.join(location)}: {message}".removeprefix(": ")
    return f"{'.'.join(location)} = {fault['input']!r}: {message}"
