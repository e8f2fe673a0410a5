"""Generated OOD sets of any size, without a download: noise, patches of photographs and rendered letters.

Each set depends only on its parameters. None has labels or splits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness_plugins.datasets.arrays import ArrayDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from PIL import Image

    Draw = Callable[[np.random.Generator, int, int, int], NDArray[np.uint8]]  # rng, count, size, channels

PHOTOGRAPHS = ("china", "flower")
SHORTEST_CROP = 213  # half the photographs' height: even large patches are cut from many places

# Left out because in few pixels they look like digits: o O Q D (0), l I i j J (1), z Z (2), s S (5),
# b G (6), T (7), B (8), g q (9).
LETTERS = "acdefhkmnprtuvwxyACEFHKLMNPRUVWXY"
FONTS = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, slanted in (("Sans", "Oblique"), ("SansMono", "Oblique"), ("Serif", "Italic"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
)
GLYPH_CANVAS = 128  # pixels at least; shrinking to the wanted size then smooths the edges
GLYPH_EXTENT = (0.75, 0.95)  # the longer side, as a share of the image's; similar to the digits
GLYPH_DEGREES = 12.0
GLYPH_SHIFT = 0.05  # of the image's side


def open_uniform(
    request: harness.DatasetRequest, *, size: int = 8, count: int = 500, seed: int = 0, channels: int = 1
) -> ArrayDataset:
    """Make images of independent pixels, uniform on 0..255.

    `count` images of `size` pixels a side, with 1 or 3 `channels`, are drawn with `seed`.
    """
    return _made(_uniform, request, size=size, count=count, seed=seed, channels=channels)


def open_gaussian(
    request: harness.DatasetRequest, *, size: int = 8, count: int = 500, seed: int = 0, channels: int = 1
) -> ArrayDataset:
    """Make images of independent normal pixels: mean 127.5, standard deviation 64, clipped to 0..255.

    `count` images of `size` pixels a side, with 1 or 3 `channels`, are drawn with `seed`.
    """
    return _made(_gaussian, request, size=size, count=count, seed=seed, channels=channels)


def open_patches(
    request: harness.DatasetRequest, *, size: int = 8, count: int = 500, seed: int = 0, channels: int = 1
) -> ArrayDataset:
    """Cut square patches at random places and scales from one of scikit-learn's two photographs.

    A patch's side is log-uniform between twice the wanted size (at most half the photograph's height) and the
    photograph's height; it is then resized with antialiasing. Grey patches are cut from the photograph's
    luma.

    `count` images of `size` pixels a side, with 1 or 3 `channels`, are drawn with `seed`.
    """
    name = request.argument
    if name not in PHOTOGRAPHS:
        raise harness.unknown_name("photograph", name, PHOTOGRAPHS, valid_label="Valid")

    def draw(rng: np.random.Generator, count: int, size: int, channels: int) -> NDArray[np.uint8]:
        return _patches(name, rng, count, size, channels)

    return _made(draw, request, size=size, count=count, seed=seed, channels=channels)


def open_letters(
    request: harness.DatasetRequest, *, size: int = 8, count: int = 500, seed: int = 0, channels: int = 1
) -> ArrayDataset:
    """Render letters, bright on dark, in the DejaVu fonts that matplotlib ships.

    Letter, font, extent, rotation and place are random. Letters that look like digits are left out: see
    LETTERS.

    `count` images of `size` pixels a side, with 1 or 3 `channels`, are drawn with `seed`.
    """
    return _made(_letters, request, size=size, count=count, seed=seed, channels=channels)


def _made(
    draw: Draw, request: harness.DatasetRequest, *, size: int, count: int, seed: int, channels: int
) -> ArrayDataset:
    if request.split is not None:
        raise harness.DatasetError(
            f"the dataset {request.name!r} is generated and has no split {request.split!r}. Leave split out"
        )
    for parameter, value, valid in (
        ("size", size, range(2, 1025)),
        ("count", count, range(1, 1_000_001)),
        ("seed", seed, range(2**32)),
        ("channels", channels, (1, 3)),
    ):
        if type(value) is not int or value not in valid:
            span = f"{valid[0]} to {valid[-1]}" if isinstance(valid, range) else "1 (grey) or 3 (RGB)"
            raise harness.InputError(f"{parameter} = {value!r} of {request.name!r} is not valid. Give {span}")
    return ArrayDataset(draw(np.random.default_rng(seed), count, size, channels))


def _shape(count: int, size: int, channels: int) -> tuple[int, ...]:
    return (count, size, size) if channels == 1 else (count, size, size, channels)


def _uniform(rng: np.random.Generator, count: int, size: int, channels: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, _shape(count, size, channels), dtype=np.uint8)


def _gaussian(rng: np.random.Generator, count: int, size: int, channels: int) -> NDArray[np.uint8]:
    noise = rng.normal(127.5, 64.0, _shape(count, size, channels))
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def _patches(name: str, rng: np.random.Generator, count: int, size: int, channels: int) -> NDArray[np.uint8]:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photograph = Image.fromarray(load_sample_image(f"{name}.jpg")).convert("L" if channels == 1 else "RGB")
    width, height = photograph.size
    shortest = min(2 * size, SHORTEST_CROP)
    patches = []
    for scale, across, down in rng.uniform(size=(count, 3)):
        side = round(shortest * (height / shortest) ** scale)
        left, top = int(across * (width - side + 1)), int(down * (height - side + 1))
        box = (left, top, left + side, top + side)
        patches.append(np.array(photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    return np.stack(patches)


def _letters(rng: np.random.Generator, count: int, size: int, channels: int) -> NDArray[np.uint8]:
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    letters = rng.integers(0, len(LETTERS), count)
    fonts = rng.integers(0, len(FONTS), count)
    placements = rng.uniform(size=(count, 4))
    images = np.stack(
        [
            _glyph(LETTERS[letter], folder / FONTS[font], size, placement)
            for letter, font, placement in zip(letters, fonts, placements, strict=True)
        ]
    )
    return images if channels == 1 else np.repeat(images[..., None], channels, axis=-1)


def _glyph(letter: str, font_file: Path, size: int, placement: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Render one letter, (size, size), its brightest pixel 255; `placement` is four numbers in 0..1."""
    from PIL import Image

    extent, angle, across, down = placement
    side = size * max(2, math.ceil(GLYPH_CANVAS / size))
    drawn = _upright(letter, font_file, side, GLYPH_EXTENT[0] + extent * (GLYPH_EXTENT[1] - GLYPH_EXTENT[0]))
    shift = (GLYPH_SHIFT * side * (2 * across - 1), GLYPH_SHIFT * side * (2 * down - 1))
    turned = drawn.rotate(GLYPH_DEGREES * (2 * angle - 1), Image.Resampling.BILINEAR, translate=shift)
    pixels = np.asarray(turned.resize((size, size), Image.Resampling.BOX), dtype=np.float64)
    bright: NDArray[np.uint8] = np.rint(pixels * (255 / pixels.max())).astype(np.uint8)
    return bright


def _upright(letter: str, font_file: Path, side: int, extent: float) -> Image.Image:
    """Draw the letter in the middle of a dark square, its longer side `extent` of the square's."""
    from PIL import Image, ImageDraw, ImageFont

    # Every build of Pillow has the basic layout engine; with the other, pixels would depend on the build.
    font = ImageFont.truetype(font_file, side, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = font.getbbox(letter)
    fitting = font.font_variant(size=side * extent * side / max(right - left, bottom - top))
    left, top, right, bottom = fitting.getbbox(letter)
    canvas = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, letter, fill=255, font=fitting)
    return canvas


@harness.hookimpl
def harness_datasets() -> Iterator[harness.DatasetSpec]:
    """Offer the synthetic sets."""
    yield harness.DatasetSpec("uniform", open_uniform)
    yield harness.DatasetSpec("gaussian", open_gaussian)
    yield harness.DatasetSpec("patches", open_patches, argument=" | ".join(PHOTOGRAPHS))
    yield harness.DatasetSpec("letters", open_letters)
