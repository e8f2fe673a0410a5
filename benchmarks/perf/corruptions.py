"""Corrupting images beside imgcorr 1.1.3, one type after the other, at 32 and at 224 pixels, in one run.

    pip install imgcorr==1.1.3 'setuptools<81'
    python benchmarks/perf/corruptions.py

Both corrupt the same colour images, decoded beforehand, at severity 3; they take turns. Ours come in batches of 256, as
a model's batch is decoded, each with a generator seeded by its content; theirs one by one, as their function does.
Exit 1 where fewer than 12 of the 15 types are as fast.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import harness
from harness.contract.selection import Selection
from harness_plugins.datasets.corruptions.dataset import CORRUPTIONS, CorruptedDataset
from harness_plugins.datasets.synthetic import open_patches

SIDES = {32: 512, 224: 16}  # images of each side
TURNS, SEVERITY, BATCH, AT_LEAST = 3, 3, 256, 12


def main() -> int:
    warnings.simplefilter("ignore")
    try:
        import imgcorr
    except ImportError:
        print("imgcorr is not installed: pip install imgcorr==1.1.3 'setuptools<81'", file=sys.stderr)
        return 2
    good = True
    for side, count in SIDES.items():
        request = harness.DatasetRequest("patches:china", argument="china")
        base = Selection.all_of("base", open_patches(request, size=side, count=count, channels=3))
        print(f"{count} images of {side} × {side}, severity {SEVERITY}: milliseconds an image")
        wins = 0
        for name, corruption in CORRUPTIONS.items():
            ours, theirs = (1e3 * seconds / count for seconds in compare(base, name, imgcorr.corrupt))
            wins += ours <= theirs and not corruption.is_extra
            extra = "   (extra)" if corruption.is_extra else ""
            print(f"  {name:18s} ours {ours:8.3f}   theirs {theirs:8.3f}   ratio {ours / theirs:6.2f}{extra}")
        print(f"  as fast or faster: {wins} of 15 (at least {AT_LEAST})")
        good &= wins >= AT_LEAST
    return 0 if good else 1


def compare(base: Selection, name: str, corrupt: Callable[..., NDArray[np.uint8]]) -> list[float]:
    """Return the seconds that all images take us and them."""
    dataset = CorruptedDataset(base, name, severity=SEVERITY)
    images = base.images(range(len(base)))

    def ours() -> None:
        for start in range(0, len(images), BATCH):
            dataset.images_at(range(start, min(start + BATCH, len(images))))

    def theirs() -> None:
        for image in images:
            corrupt(image, severity=SEVERITY, corruption_name=name)

    theirs()  # compiles
    return in_turns(ours, theirs)


def in_turns(*runs: Callable[[], None]) -> list[float]:
    """Return each run's least seconds, over turns."""
    seconds = [float("inf")] * len(runs)
    for _ in range(TURNS):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            run()
            seconds[number] = min(seconds[number], time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
