"""The preprocessing that a suite states for a model, in place of the model's own."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from harness.base.errors import InputError
from harness.base.toml import Table
from harness.contract.preprocessing import Preprocessing

Pixels = Annotated[int, Field(ge=1)]
BY = "the suite"


class StatedPreprocessing(Table):
    """`preprocessing` of [[models]]: the values that replace the model's own; what is left out stays as it is."""

    size: Pixels | tuple[Pixels, Pixels] | None = None  # the side of a square, or [height, width]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None

    @model_validator(mode="after")
    def _can_be_meant(self) -> Self:
        channels = len(self.mean or self.std or (0.0,))
        try:
            self.over(Preprocessing((channels, 1, 1), mean=(0.5,) * channels, std=(0.5,) * channels))
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The values that are stated; the size as (height, width)."""
        stated = self.model_dump(exclude_none=True)
        if isinstance(self.size, int):
            stated["size"] = (self.size, self.size)
        return stated

    def over(self, own: Preprocessing) -> Preprocessing:
        """Return a model's own preprocessing with the stated values. Raises InputError if they do not fit it."""
        stated = self.values
        if (size := stated.pop("size", None)) is not None:
            stated["input_size"] = (own.input_size[0], *size)
        return own.overridden(stated, by=BY)
