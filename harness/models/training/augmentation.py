"""Random augmentation of training images by timm and torchvision; the same seed gives the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError
from harness.base.seeding import reseed, reseed_libraries

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from harness.contract.preprocessing import Preprocessing
    from harness.models.training.recipe import AugmentationTable

_WHOLE = (1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Augmentation:
    """A recipe's [augmentation] for the images of one preprocessing."""

    table: AugmentationTable
    preprocessing: Preprocessing

    @property
    def crops_the_original(self) -> bool:
        """Whether a random resized crop comes first, so that images must not be resized before."""
        return self.table.scale != _WHOLE or self.table.ratio != _WHOLE

    def __post_init__(self) -> None:
        _ = self._transform  # so that invalid settings raise an error before anything is decoded

    def changed(self, image: NDArray[np.uint8], seed: int, *, is_fitted: bool = False) -> Tensor:
        """Augment one decoded image, (H, W) or (H, W, 3), to uint8 (channels, height, width).

        A fitted image already has the model's size. This draws from the global generators, so call it within
        `seeded` and `library_seeds_restored`.
        """
        import numpy as np
        import torch
        from PIL import Image

        reseed(seed)
        reseed_libraries(seed)
        channels = self.preprocessing.input_size[0]
        if not (is_fitted or self.crops_the_original):
            fitted = self.preprocessing.batch([image])[0].numpy()
            image = fitted[0] if channels == 1 else fitted.transpose(1, 2, 0)
        picture = Image.fromarray(image).convert("L" if channels == 1 else "RGB")
        array = np.asarray(self._transform(picture), dtype=np.uint8)
        return torch.from_numpy(np.ascontiguousarray(array.reshape(self.preprocessing.input_size)))

    @cached_property
    def erase(self) -> Callable[[Tensor], Tensor] | None:
        """Random erasing of normalised images (N, channels, H, W); None if the recipe has none."""
        if not self.table.re_prob:
            return None
        from timm.data.random_erasing import RandomErasing

        make: Any = RandomErasing  # untyped
        erasing: Callable[[Tensor], Tensor] = make(self.table.re_prob, mode=self.table.re_mode, device="cpu")
        return erasing

    @cached_property
    def _transform(self) -> Callable[[Any], Any]:
        from timm.data.transforms_factory import create_transform
        from torchvision import transforms

        table, (_, height, width) = self.table, self.preprocessing.input_size
        try:
            first, second, last = create_transform(
                self.preprocessing.input_size,
                is_training=True,
                mean=self.preprocessing.mean,  # some transforms fill borders with it
                scale=table.scale,
                ratio=table.ratio,
                hflip=table.hflip,
                vflip=table.vflip,
                color_jitter=table.color_jitter or None,  # type: ignore[arg-type]
                auto_augment=table.auto_augment,
                interpolation=self.preprocessing.interpolation,
                use_prefetcher=True,  # ends with uint8, which leaves normalising to the device
                separate=True,
            )
        except (AssertionError, KeyError, ValueError) as error:
            raise InputError(
                f"auto_augment = {table.auto_augment!r} is not known to timm ({error}). "
                "Give, for example, 'rand-m9-mstd0.5', 'augmix-m3' or 'original'"
            ) from None
        cropped = []
        if table.crop_padding:
            cropped.append(transforms.RandomCrop((height, width), padding=table.crop_padding))
        # timm's first transform is the random resized crop. Even if it keeps the whole, it distorts non-square images.
        begin = first.transforms if self.crops_the_original else [*cropped, *first.transforms[1:]]
        transform: Callable[[Any], Any] = transforms.Compose([*begin, *second.transforms, *last.transforms])
        return transform
