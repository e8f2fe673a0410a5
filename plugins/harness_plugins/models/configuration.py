"""timm's data configuration, in which checkpoints state their preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Mapping


def preprocessing_from(config: Mapping[str, Any], *, in_chans: int | None = None) -> harness.Preprocessing:
    """Turn timm's data configuration into Preprocessing.

    If a model is built for another number of channels, `in_chans`, the input size gets this number, and the means
    and deviations are averaged over channels.
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
