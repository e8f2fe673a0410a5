"""timm's data configuration, the form in which every checkpoint states its preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Mapping


def preprocessing_from(config: Mapping[str, Any], *, in_chans: int | None = None) -> harness.Preprocessing:
    """Turn timm's data configuration into Preprocessing.

    A model built for `in_chans` channels, where the configuration has another number, gets that many in its
    input size, and the average of the means and of the deviations.
    """
    size = tuple(int(length) for length in config["input_size"])
    channels = in_chans or size[0]
    return harness.Preprocessing(
        input_size=(channels, size[1], size[2]),
        mean=_one_a_channel(config["mean"], channels),
        std=_one_a_channel(config["std"], channels),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
        crop_mode=str(config["crop_mode"]),
    )


def _one_a_channel(values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels
