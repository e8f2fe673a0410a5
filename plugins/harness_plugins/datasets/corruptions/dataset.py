"""A selection's images under one corruption: computed on access, in batches, deterministic.

Each image has its own generator, seeded by its pixels, the type, the severity and the seed, so the order of access and
global state do not matter. The published files were JPEG-compressed afterwards and truncate decimals, which we round,
so results on them are not comparable with results on these images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import fromarray

from harness_plugins.datasets.corruptions import blur, digital, noise, weather
from harness_plugins.datasets.corruptions.arrays import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    import harness
    from harness_plugins.datasets.corruptions.arrays import Generators, Images

VERSION = 2  # part of every digest: raise it if a corruption's pixels change
AT_ONCE = 2**21  # values that are corrupted together


@dataclass(frozen=True)
class Corruption:
    """A corruption: images (N, C, H, W), severity and generators to images that need not lie in 0..1.

    `recode` is a function of one 8-bit Pillow image. It replaces `corrupt` from 32 pixels up, or at any size if
    `corrupt` is None.
    """

    corrupt: Callable[[Images, int, Generators], Images] | None = None
    recode: Callable[[Image, int], Image] | None = None
    draws: bool = False  # whether it is random
    is_extra: bool = False  # one of the four that were published for validation


CORRUPTIONS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, draws=True),
    "shot_noise": Corruption(noise.shot_noise, draws=True),
    "impulse_noise": Corruption(noise.impulse_noise, draws=True),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur, draws=True),
    "motion_blur": Corruption(blur.motion_blur, draws=True),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, draws=True),
    "frost": Corruption(weather.frost, draws=True),
    "fog": Corruption(weather.fog, draws=True),
    "brightness": Corruption(weather.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(digital.elastic_transform, draws=True),
    "pixelate": Corruption(digital.pixelate_small, digital.pixelate),
    "jpeg_compression": Corruption(recode=digital.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, draws=True, is_extra=True),
    "gaussian_blur": Corruption(blur.gaussian_blur, is_extra=True),
    "spatter": Corruption(weather.spatter, draws=True, is_extra=True),
    "saturate": Corruption(digital.saturate, is_extra=True),
}


class CorruptedDataset:
    """A selection's images under one corruption, with the selection's labels."""

    def __init__(self, base: harness.Selection, corruption: str, *, severity: int, seed: int = 0) -> None:
        self._base = base
        self._corruption = CORRUPTIONS[corruption]
        self._severity = severity
        self._recipe = f"{corruption}/{severity}/{seed}/{VERSION}"

    @property
    def digest(self) -> str:
        """BLAKE2b of the selection's digest, type, severity, seed and version."""
        return hashlib.blake2b(f"{self._base.digest}/{self._recipe}".encode(), digest_size=16).hexdigest()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The selection's classes, (N,)."""
        return self._base.labels

    def __len__(self) -> int:
        return len(self._base)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images_at([index])[0]

    def images_at(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Corrupt several images; those of one shape together."""
        originals = self._base.images(np.asarray(indices, dtype=np.int64))
        found: list[NDArray[np.uint8]] = list(originals)
        for shape in dict.fromkeys(image.shape for image in originals):
            positions = [number for number, image in enumerate(originals) if image.shape == shape]
            step = max(1, AT_ONCE // int(np.prod(shape)))
            for start in range(0, len(positions), step):
                chosen = positions[start : start + step]
                corrupted = self._corrupted([originals[number] for number in chosen])
                for number, image in zip(chosen, corrupted, strict=True):
                    found[number] = image
        return found

    def identity(self, index: int) -> bytes:
        """Return the corrupted pixels."""
        return self[index].tobytes()

    def _corrupted(self, originals: list[NDArray[np.uint8]]) -> Iterable[NDArray[np.uint8]]:
        """Corrupt images of one shape, (H, W) or (H, W, 3)."""
        corrupt, recode = self._corruption.corrupt, self._corruption.recode
        if recode is not None and (corrupt is None or min(originals[0].shape[:2]) >= SMALL):
            return [np.asarray(recode(fromarray(image), self._severity)) for image in originals]
        if corrupt is None:
            raise TypeError("a corruption needs a function of arrays, of Pillow images, or both")
        stacked = np.stack(originals)
        is_grey = stacked.ndim == 3
        channels_first = stacked[:, None] if is_grey else stacked.transpose(0, 3, 1, 2)
        images = np.ascontiguousarray(channels_first, dtype=np.float32) / np.float32(255)
        generators = [self._generator(image) for image in originals] if self._corruption.draws else []
        corrupted = corrupt(images, self._severity, generators)
        pixels = np.rint(np.clip(corrupted, 0, 1) * 255).astype(np.uint8)
        return pixels[:, 0] if is_grey else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))

    def _generator(self, image: NDArray[np.uint8]) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self._recipe}/{image.shape}/".encode(), digest_size=16)
        digest.update(image.tobytes())
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest.digest(), "little")))
