"""Building timm's models: a known name, seeded weights, the preprocessing that the configuration states."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import timm
from timm.data.config import resolve_data_config

import harness
from harness_plugins.models.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

Parts = tuple["nn.Module", harness.Preprocessing, int]  # classifier, its preprocessing, number of classes


def create(name: str, arguments: Mapping[str, Any], *, stated: Mapping[str, Any], seed: int = 0) -> Parts:
    """Build timm's model of that name; `arguments` are timm's own, `stated` overrides its data configuration.

    Weights that are not pretrained are drawn from the seed. Raises InputError for an unknown name.
    """
    refuse_unknown(name)
    with seeded(seed):
        model: Any = timm.create_model(name, **arguments)
    config = resolve_data_config(  # type: ignore[no-untyped-call]
        pretrained_cfg={**model.pretrained_cfg, **stated}, model=model
    )
    return model, preprocessing_from(config, in_chans=arguments.get("in_chans")), int(model.num_classes)


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


def refuse_unknown(name: str) -> None:
    """Raise InputError with the nearest names unless timm knows the architecture and its tag, if any."""
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        kind, wrong, valid = "timm architecture", architecture, timm.list_models()
    elif tag and name not in timm.list_pretrained():
        kind, wrong, valid = "timm model", name, timm.list_pretrained(f"{architecture}.*")
    else:
        return
    nearest = difflib.get_close_matches(wrong, valid, n=5, cutoff=0.5)
    hint = f"Nearest: {', '.join(nearest)}" if nearest else "timm.list_models() lists them all"
    raise harness.InputError(f"no {kind} named {wrong!r}. {hint}")


def _one_a_channel(values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels
