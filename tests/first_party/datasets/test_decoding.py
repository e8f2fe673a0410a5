from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from harness_plugins.datasets.decoding import decode

RAMP = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)
RGB = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_grey_and_rgb_come_back_as_they_were() -> None:
    assert decode(encoded(Image.fromarray(RAMP))).tolist() == RAMP.tolist()
    assert decode(encoded(Image.fromarray(RGB))).tolist() == RGB.tolist()


def test_black_and_white_becomes_grey() -> None:
    bits = RAMP > 100
    assert decode(encoded(Image.fromarray(bits))).tolist() == (bits * 255).tolist()


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = RAMP.astype(np.uint16) * 257
    assert decode(encoded(Image.fromarray(wide))).tolist() == RAMP.tolist()
    assert decode(encoded(Image.fromarray(wide), "TIFF")).tolist() == RAMP.tolist()


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80\xff"])
def test_palettes_become_rgb_without_a_warning(transparency: int | bytes | None) -> None:
    image = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(image.convert("RGB")).tolist()
    options = {} if transparency is None else {"transparency": transparency}
    assert decode(encoded(image, **options)).tolist() == expected


def test_transparency_is_dropped() -> None:
    alpha = np.full((4, 4), 7, dtype=np.uint8)
    rgba = Image.fromarray(np.dstack([RGB, alpha]))
    grey_alpha = Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(alpha)])
    assert decode(encoded(rgba)).tolist() == RGB.tolist()
    assert decode(encoded(grey_alpha)).tolist() == RAMP.tolist()


def test_cmyk_becomes_rgb() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert decode(encoded(cmyk, "TIFF")).tolist() == np.asarray(cmyk.convert("RGB")).tolist()


def test_orientation_tags_are_not_applied() -> None:
    wide = Image.new("L", (8, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode(encoded(wide, "JPEG", exif=exif)).shape == (2, 8)


def test_floating_point_and_wider_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="no 8-bit meaning"):
        decode(encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))
    with pytest.raises(ValueError, match="not of 16 bits"):
        decode(encoded(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)), "TIFF"))


def test_decoded_images_can_be_written_to() -> None:
    for image in (Image.fromarray(RAMP), Image.fromarray(RGB), Image.fromarray(RAMP.astype(np.uint16))):
        assert decode(encoded(image)).flags.writeable
