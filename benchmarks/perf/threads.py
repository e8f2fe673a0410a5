"""The number of CPU threads that the harness chooses, against the better of one and all, while a core is kept busy.

    python benchmarks/perf/threads.py

Another process keeps one core busy. A network is trained, and features are extracted, on one thread, on all, and on the
number that the harness chooses; the time of its trials counts. All take turns, and sums are compared, as the speed of a
shared machine wanders. On fixed numbers fewer steps are taken, since they may be thirty times slower. Exit 1 above the
bound. OMP_NUM_THREADS and its like, which would be the user's choice, are ignored.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch

from harness.base.cache import Cache
from harness.base.threads import VARIABLES
from harness.contract.preprocessing import Preprocessing
from harness.contract.registry import Registry
from harness.contract.selection import Selection
from harness.contract.specs import Model, TrainingData
from harness.data.streams import Stream
from harness.engine.manifest import device_name
from harness.models.extract import extract
from harness.models.loaded import LoadedModel
from harness.models.training.recipe import load_recipe
from harness.models.training.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BOUND = 1.15
ROUNDS, STEPS, FEW, BATCH = 3, 400, 12, 64
BUSY = "while True: pass"


@dataclass(frozen=True, eq=False)
class Noise:
    """Images of random pixels, with labels of ten classes in turn."""

    images: NDArray[np.uint8]
    digest: str = "noise"

    @property
    def labels(self) -> NDArray[np.int64]:
        """Classes in turn."""
        return np.arange(len(self.images)) % 10

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.images[index]
        return image

    def identity(self, index: int) -> bytes:
        """Return the pixels."""
        return self.images[index].tobytes()


def noise(count: int, side: int) -> Selection:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)
    return Selection.all_of("noise", Noise(pixels))


def train(steps: int) -> int | None:
    """Train the network of the recipe fashion-mnist-softmax for some steps. Returns the chosen number of threads."""
    registry = Registry.load()
    recipe = load_recipe("fashion-mnist-softmax", registry)
    settings = recipe.model_copy(
        update={"epochs": 1, "batch_size": BATCH, "augmentation": None, "select": "last"}
    )
    data = TrainingData(noise(steps * BATCH, 28), None, 10)
    return Training(settings, data, 0, registry, "cpu").run().threads


def forward(steps: int) -> int | None:
    """Extract features of a ResNet-18 at 64 pixels, for some batches. Returns the chosen number of threads."""
    network: Any = timm.create_model("resnet18", pretrained=False, num_classes=10, in_chans=1)
    loaded = LoadedModel(Model(network.eval(), Preprocessing((1, 64, 64), (0.5,), (0.5,)), 10), "cpu")
    stream = Stream.of(noise(steps * BATCH // 16, 64), batch_size=BATCH // 16)
    with tempfile.TemporaryDirectory() as folder:
        extract(loaded, stream, Cache(Path(folder)))
    return loaded.pace.threads(stream.batch_size).chosen


def on(threads: int | None, work: Callable[[int], int | None], steps: int) -> tuple[float, int | None]:
    """Time the work per step, on the user's number of threads or, without one, on the harness's choice."""
    torch.set_num_threads(threads or ALL)
    if threads:
        os.environ[VARIABLES[0]] = str(threads)
    start = time.perf_counter()
    chosen = work(steps)
    seconds = time.perf_counter() - start
    os.environ.pop(VARIABLES[0], None)
    return seconds / steps, chosen


ALL = torch.get_num_threads()


def main() -> int:
    if any(os.environ.get(name) for name in VARIABLES):  # torch has read them
        free = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        return subprocess.run([sys.executable, *sys.argv], env=free, check=False).returncode
    print(
        f"{device_name('cpu')}, {ALL} threads, torch {torch.__version__}; another process keeps one core busy"
    )
    header = "milliseconds per step", "1 thread", f"{ALL} threads", "chosen", "ratio", "bound"
    print("{:24s} {:>9s} {:>10s} {:>8s} {:>6s} {:>6s}".format(*header), flush=True)
    worst = 0.0
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            for name, work in (("training", train), ("extraction", forward)):
                worst = max(worst, compared(name, work))
        finally:
            busy.kill()
    return int(worst > BOUND)


def compared(name: str, work: Callable[[int], int | None]) -> float:
    work(2)  # warm
    sums, choices = dict.fromkeys((1, ALL, None), 0.0), []
    for _ in range(ROUNDS):
        for threads, steps in ((1, FEW * 4), (ALL, FEW), (None, STEPS), (1, FEW * 4)):
            seconds, chosen = on(threads, work, steps)
            sums[threads] += seconds / (2 if threads == 1 else 1)
            choices += [] if threads else [chosen]
    one, all_, found = (1000 * sums[threads] / ROUNDS for threads in (1, ALL, None))
    ratio = found / min(one, all_)
    print(
        f"{name:24s} {one:9.1f} {all_:10.1f} {found:8.1f} {ratio:6.3f} {BOUND:6.2f}  chosen: {choices}",
        flush=True,
    )
    return ratio


if __name__ == "__main__":
    sys.exit(main())
