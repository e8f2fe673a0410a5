"""Writes corruptions.json: what imgcorr 1.1.3 makes of images that a formula gives. It runs where that is installed.

Where no randomness enters, a grid of the corrupted pixels; else the mean over 20 runs of three statistics: mean,
standard deviation, and the root of the mean squared difference from the original.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

SHAPES = ((32, 32, 3), (64, 96, 3), (224, 224, 3))
FIXED = (
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
)  # fmt: skip
SEVERITIES, RUNS, GRID = (1, 3, 5), 20, 7


def picture(height: int, width: int, channels: int) -> np.ndarray:
    """Make an image of waves, a bright square and a colour cast."""
    i, j = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    planes = [
        0.5 + 0.4 * np.sin(20 * i * (c + 1) + 9 * j) * np.cos(13 * j * (c + 2) / 2) for c in range(channels)
    ]
    image = np.stack(planes, axis=2)
    image[height // 4 : height // 2, width // 3 : width // 2] = (0.9, 0.8, 0.2)
    return np.rint(image * 255).astype(np.uint8)


def main() -> None:
    import imgcorr

    warnings.simplefilter("ignore")
    np.random.seed(0)
    found = []
    for shape in SHAPES:
        image = picture(*shape)
        for name in imgcorr.get_corruption_names("all"):
            for severity in SEVERITIES:
                place = {"shape": shape, "type": name, "severity": severity}
                runs = 1 if name in FIXED else RUNS
                outputs = np.stack(
                    [imgcorr.corrupt(image, severity=severity, corruption_name=name) for _ in range(runs)]
                ).astype(np.float64)
                if name in FIXED:
                    found.append(
                        {**place, "pixels": outputs[0, ::GRID, ::GRID].astype(int).ravel().tolist()[:300]}
                    )
                    continue
                statistics = {
                    "mean": outputs.mean(axis=(1, 2, 3)),
                    "deviation": outputs.std(axis=(1, 2, 3)),
                    "difference": np.sqrt(((outputs - image) ** 2).mean(axis=(1, 2, 3))),
                }
                found.append(
                    place | {key: round(float(value.mean()), 3) for key, value in statistics.items()}
                )
    text = json.dumps({"package": "imgcorr 1.1.3", "cases": found}, separators=(",", ":"))
    Path(__file__).with_name("corruptions.json").write_text(text.replace('},{"shape', '},\n{"shape') + "\n")


if __name__ == "__main__":
    main()
