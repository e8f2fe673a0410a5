"""timm's data configuration, in which checkpoints state their preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Mapping

STATED = (
    "input_size",
    "mean",
    "std",
    "interpolation",
    "crop_pct",
)  # crop_mode is newer: without it, "center"


def preprocessing_from(
    config: Mapping[str, Any],
    *,
    in_chans: int | None = None,
    source: str = "",
    assumed: tuple[str, ...] = (),
) -> harness.Preprocessing:
    """Turn timm's data configuration into Preprocessing.

    If a model is built for another number of channels, `in_chans`, the input size gets this number, and the means
    and deviations are averaged over channels. Raises InputError for values that cannot be meant.
    """
    size: Any = tuple(config["input_size"])
    channels = in_chans or size[0]
    return harness.Preprocessing(
        input_size=(channels, *size[1:]),
        mean=_one_a_channel(config["mean"], channels),
        std=_one_a_channel(config["std"], channels),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
        crop_mode=str(config["crop_mode"]),
        source=source,
        assumed=assumed,
    )


def require_size(size: Any) -> None:
    """Raise InputError unless the size is three whole numbers above 0: channels, height and width."""
    channels = size[0] if size and size[0] in (1, 3) else 3
    harness.Preprocessing(tuple(size), (0.0,) * channels, (1.0,) * channels)


def _one_a_channel(values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels
