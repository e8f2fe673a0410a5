"""The vMF entropy in tiles beside the form that holds all pairs, forward and backward: time and memory in one run.

    python benchmarks/perf/er.py

8,192 unit vectors in 512 dimensions, float32. Times alternate in one process; each form's most memory is measured in
a process of its own, above what that process held before. Exit 1 where a bound is missed.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from harness_plugins.probes.er import log_normaliser, vmf_entropy

ROWS, COLUMNS, REPEATS = 8192, 512, 5
SLOWER, MEMORY = 1.0, 0.25
FORMS = ("whole", "tiles")


def main() -> int:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, n = {ROWS:,}, d = {COLUMNS}")
    # Memory first: on Linux a new process's recorded peak begins at what its parent holds.
    megabytes = {name: measured_apart(name) for name in FORMS}
    seconds = dict.fromkeys(FORMS, 0.0)
    for name in FORMS:
        step(name)  # warm
    for _ in range(REPEATS):
        for name in FORMS:
            start = time.perf_counter()
            step(name)
            seconds[name] += time.perf_counter() - start
    for name in FORMS:
        print(f"{name}: {seconds[name] / REPEATS:.2f} s, {megabytes[name]:.0f} MB")
    slower, memory = seconds["tiles"] / seconds["whole"], megabytes["tiles"] / megabytes["whole"]
    print(
        f"tiles take {slower:.2f} of the time (at most {SLOWER}) and {memory:.2f} of the memory (at most {MEMORY})"
    )
    return 0 if slower <= SLOWER and memory <= MEMORY else 1


def step(name: str) -> tuple[Tensor, Tensor]:
    """Compute the entropy and its gradient."""
    z = functional.normalize(torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)))
    z.requires_grad_()
    entropy = whole(z) if name == "whole" else vmf_entropy(z)
    (gradient,) = torch.autograd.grad(entropy, z)
    return entropy.detach(), gradient


def whole(z: Tensor, kappa: float = 10.0) -> Tensor:
    """Compute the plug-in entropy from the matrix of all pairs, as the formula is written."""
    logs = torch.logsumexp(kappa * z @ z.T, dim=1) - log_normaliser(z.shape[1], kappa) - math.log(len(z))
    return -(logs.softmax(dim=0) * logs).sum()


def measured_apart(name: str) -> float:
    """Return most_memory of a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(most_memory, name).result()


def most_memory(name: str) -> float:
    """Return the megabytes by which a step raises this process's peak."""
    small = functional.normalize(torch.randn(64, COLUMNS)).requires_grad_()
    torch.autograd.grad(whole(small) if name == "whole" else vmf_entropy(small), small)  # loads all code
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(name)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


if __name__ == "__main__":
    sys.exit(main())
