"""Converts decoded images to the tensor that a model expects, as the model's own configuration states.

Wrong preprocessing is the most common error in this field. So each model states its preprocessing, and every key and
run.json contain it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
_LARGEST_CROP = 1.5  # timm's own configurations go to 1.15, which pads; more is a percentage by mistake


@dataclass(frozen=True)
class Preprocessing:
    """A model's preprocessing of images: timm's `input_size`, `mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`.

    Geometry (resize, crop, channels) is done on 8-bit images, as in timm. `normalise` runs on the model's device, so
    that only a quarter of the bytes are transferred. Raises InputError for values that cannot be meant.
    """

    input_size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    crop_mode: str = "center"
    source: str = field(default="", compare=False)  # who states it, such as "config.json"
    assumed: tuple[str, ...] = field(default=(), compare=False)  # the values that nobody states: defaults

    def __post_init__(self) -> None:
        _require_size(self.input_size)
        for name, values in (("mean", self.mean), ("std", self.std)):
            _require_one_a_channel(name, values, self.input_size[0])
        if min(self.std) <= 0:
            raise InputError(f"std {self.std} must be above 0")
        if not 0 < self.crop_pct <= _LARGEST_CROP:
            raise InputError(
                f"crop_pct is {self.crop_pct}. Give the share of the resized image that is kept, above 0 and up to 1, "
                "as in 0.875"
            )
        if self.crop_mode not in CROP_MODES:
            raise _unknown("crop_mode", self.crop_mode, CROP_MODES)
        if self.interpolation not in INTERPOLATIONS:
            raise _unknown("interpolation", self.interpolation, INTERPOLATIONS)

    @property
    def values(self) -> dict[str, Any]:
        """The six values that decide what the model sees, for keys."""
        return {key: value for key, value in asdict(self).items() if key not in ("source", "assumed")}

    @property
    def facts(self) -> dict[str, Any]:
        """The values with their source, for run.json; `preprocessing_text` reads them."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The preprocessing in one line: "224 px, bicubic, crop .875 (center), mean .5, std .5, from config.json"."""
        return preprocessing_text(self.facts)

    def overridden(self, values: Mapping[str, Any], *, by: str) -> Preprocessing:
        """Replace some of the values; the source names who did. Raises InputError for values that cannot be meant."""
        if not values:
            return self
        changed = ", ".join(key for key in self.values if key in values)
        assumed = tuple(key for key in self.assumed if key not in values)
        is_whole = values.keys() == self.values.keys() or (self.assumed and not assumed)
        source = (
            by
            if is_whole or self.source == by
            else f"{self.source or 'the model'}, changed by {by}: {changed}"
        )
        return replace(self, **values, source=source, assumed=assumed)

    def batch(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Convert decoded images, (H, W) or (H, W, 3), to the model's size: uint8 (N, channels, height, width)."""
        import numpy as np
        import torch

        channels, height, width = self.input_size
        fitting = (height, width) if channels == 1 else (height, width, 3)
        if self.crop_pct == 1.0 and all(image.shape == fitting for image in images):
            stacked = np.stack(images)
            channels_first = stacked[:, None] if channels == 1 else stacked.transpose(0, 3, 1, 2)
            return torch.from_numpy(np.ascontiguousarray(channels_first))
        return torch.from_numpy(np.stack([self._resized(image) for image in images]))

    def normalise(self, images: Tensor) -> Tensor:
        """Convert uint8 images (N, channels, H, W) to float32, (x / 255 - mean) / std, on their device."""
        import torch

        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
        return images.float().div_(255).sub_(mean).div_(std)

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import numpy as np
        from PIL import Image

        grey = self.input_size[0] == 1
        array = np.asarray(
            self._transform(Image.fromarray(image).convert("L" if grey else "RGB")), dtype=np.uint8
        )
        return array.reshape(self.input_size)

    @cached_property
    def _transform(self) -> Callable[[Any], Any]:
        from timm.data.transforms_factory import create_transform

        # With `use_prefetcher`, timm returns uint8 images, channels first, that are not yet normalised.
        transform: Callable[[Any], Any] = create_transform(
            self.input_size,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            use_prefetcher=True,
        )
        return transform


def preprocessing_text(facts: Mapping[str, Any]) -> str:
    """Write a preprocessing, given by its facts as in run.json, in one line."""
    channels, height, width = facts["input_size"]
    size = f"{height}" if height == width else f"{height}×{width}"
    parts = [
        f"{size} px{' grey' if channels == 1 else ''}",
        str(facts["interpolation"]),
        f"crop {_short(facts['crop_pct'])} ({facts['crop_mode']})",
        *(f"{key} {_numbers(facts[key])}" for key in ("mean", "std")),
    ]
    if source := facts.get("source"):
        assumed = facts.get("assumed")
        parts.append(f"from {source}" + (f" (not stated: {', '.join(assumed)})" if assumed else ""))
    return ", ".join(parts)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(map(_short, values if len(set(values)) > 1 else values[:1]))


def _short(value: float) -> str:
    text = f"{value:.4g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def _require_size(size: Sequence[object]) -> None:
    is_whole = all(isinstance(length, int) and not isinstance(length, bool) and length > 0 for length in size)
    if len(size) != 3 or not is_whole:
        raise InputError(
            f"input_size {size} must be three whole numbers above 0: channels, height, width. Example: [3, 224, 224]"
        )
    if size[0] not in (1, 3):
        raise InputError(f"input_size {size} has {size[0]} channels. Valid: 1 (grey) or 3 (RGB)")


def _require_one_a_channel(name: str, values: Sequence[float], channels: int) -> None:
    """Refuse a mean or std of another number of channels, that is not finite, or of pixels from 0 to 255."""
    if len(values) != channels:
        raise InputError(f"{name} has {len(values)} values for {channels} channels. Give {channels}")
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{name} {values} must be finite numbers")
    if max(values) > 1:
        raise InputError(
            f"{name} {values} is for pixels on the scale of 0 to 255. Divide by 255, as in {values[0] / 255:.3g}: "
            "the harness scales pixels to 0 to 1 first"
        )


def _unknown(kind: str, name: str, valid: Sequence[str]) -> InputError:
    return InputError(str(unknown_name(kind, name, valid, valid_label="Valid")))
