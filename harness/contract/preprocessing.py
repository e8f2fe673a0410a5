"""Converts decoded images to the tensor that a model expects, as the model's own configuration states.

Wrong preprocessing is the most common error in this field. So each model states its preprocessing, and every key and
run.json contain it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """A model's preprocessing of images: timm's `input_size`, `mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`.

    Geometry (resize, crop, channels) is done on 8-bit images, as in timm. `normalise` runs on the model's device, so
    that only a quarter of the bytes are transferred.
    """

    input_size: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        channels = self.input_size[0]
        if channels not in (1, 3):
            raise InputError(
                f"input_size {self.input_size} has {channels} channels. Valid: 1 (grey) or 3 (RGB)"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise InputError(f"{name} has {len(values)} values for {channels} channels. Give {channels}")

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
