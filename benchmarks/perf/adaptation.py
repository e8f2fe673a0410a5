"""What the harness adds to adapting: a passage beside the bare forward and backward passes that each method defines.

    OOD_HARNESS_DATA=... python benchmarks/perf/adaptation.py

The convnet of fashion-mnist-batchnorm, untrained, on 4,000 images in batches of 200. The bare loop forwards the same
images, normalised beforehand, as often as the method does, takes as many gradients of the mean entropy with respect to
scale and shift, and steps as often. The harness adapts, predicts and counts; it decodes a stream for the first adapter
that meets it, and keeps it for the others, so that both are shown. They take turns. Exit 1 where a method takes more
than 1.15 times as long on a stream that was decoded before.
"""

from __future__ import annotations

import copy
import sys
import time
from typing import Any

import torch
from torch import Tensor

from harness.contract.preprocessing import Preprocessing
from harness.contract.registry import Registry
from harness.contract.specs import Model
from harness.data.opening import open_dataset
from harness.data.streams import Stream
from harness.evaluations.adaptation.passage import Passage
from harness.evaluations.adaptation.tally import tallied
from harness.models.decoded import Decoder
from harness.models.extract import Counts
from harness.models.loaded import LoadedModel
from harness_plugins.adapters.layers import entropy, make_optimizer, only_affine_moves, use_batch_statistics
from harness_plugins.models.networks import cnn

IMAGES, BATCH, TURNS, BOUND = 4000, 200, 5, 1.15
PASSES = {"norm": (1, 0), "tent": (1, 1)}  # forwards, backwards: of methods that leave no sample out


def main() -> int:
    registry = Registry.load()
    torch.manual_seed(0)
    preprocessing = Preprocessing((1, 28, 28), mean=(0.286,), std=(0.353,))
    loaded = LoadedModel(Model(cnn((1, 28, 28), 10, width=16).eval(), preprocessing, 10), "cpu")
    images = open_dataset("images", "hf:fashion_mnist", registry, split="test").limited(IMAGES)
    stream = Stream.mixed([images], batch_size=BATCH, seed=0)
    batches = [preprocessing.normalise(preprocessing.batch(stream.images(b))) for b in stream.batches()]
    print(
        f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}: {IMAGES} images, batches of {BATCH}"
    )
    good = True
    for name, (forwards, backwards) in PASSES.items():
        build = registry.get("adapter", name).spec.build
        least = dict.fromkeys(("bare", "first", "harness"), float("inf"))
        for _ in range(TURNS):
            start = time.perf_counter()
            bare(loaded, batches, forwards, backwards)
            least["bare"] = min(least["bare"], time.perf_counter() - start)
            decoder = Decoder(loaded, Counts())
            for turn in ("first", "harness"):
                start = time.perf_counter()
                steps = Passage(build(), decoder, after=False).run([stream])
                list(tallied(steps, num_outputs=10))
                least[turn] = min(least[turn], time.perf_counter() - start)
        first, ratio = (least[turn] / least["bare"] for turn in ("first", "harness"))
        good &= ratio <= BOUND
        print(
            f"  {name:5s} {forwards} forwards, {backwards} backwards: bare {least['bare']:.2f} s, "
            f"harness {least['harness']:.2f} s, ratio {ratio:.3f} (at most {BOUND}); "
            f"with decoding {least['first']:.2f} s, ratio {first:.3f}"
        )
    return 0 if good else 1


def bare(loaded: LoadedModel, batches: list[Tensor], forwards: int, backwards: int) -> None:
    """Pass every batch through a copy of the network so often, without anything else."""
    network: Any = copy.deepcopy(loaded.model.classifier)
    use_batch_statistics(network)
    optimizer = make_optimizer(only_affine_moves(network), "adam", 1e-3)
    for images in batches:
        for number in range(forwards):
            if number >= backwards:
                with torch.no_grad():
                    network(images)
                continue
            entropy(network(images)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    sys.exit(main())
