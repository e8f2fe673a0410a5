"""What a board costs beside the bare forward pass, measured side by side in one run.

    OOD_HARNESS_DATA=... python benchmarks/perf/board.py [SUITE] [--device DEVICE]

The bare pass forwards the same images, decoded beforehand, in the same batches, and keeps nothing. Extraction decodes,
forwards and fills a cold cache. The board is a whole run from a cold cache: data opened and checked, features, fits,
scores, metrics, intervals, ranks, files. The model is trained beforehand. Exit 1 where a ratio is above its bound.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from harness.cache import Cache, default_root
from harness.data import open_id, open_set
from harness.extract import extract
from harness.loaded import LoadedModel, resolve_device
from harness.manifest import device_name
from harness.plan import Plan
from harness.registry import Registry
from harness.runner import RunOptions, prepare, run_plan
from harness.scoring import Clock, Failure, fit_scorer, score_features
from harness.specs import ModelRequest, TrainingData
from harness.streams import Stream
from harness.types import FeatureSet

EXTRACTION_BOUND, BOARD_BOUND = 1.10, 1.30
QUADRATIC_FROM = 1.5  # a scorer whose scoring slows by this when its training data double
REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", default="fashion-mnist")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    plan, registry = prepare(arguments.suite)
    plan = replace(plan, models=plan.models[:1])
    model, streams = load(plan, registry, device)
    images = sum(map(len, streams))
    print(f"{arguments.suite}, {plan.models[0].label}: {images} images in {len(streams)} streams")
    print(f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    batches = [model.model.preprocessing.batch(s.images(b)) for s in streams for b in s.batches()]
    bare_pass(model, batches[:20])
    bare, extraction = [], []
    for _ in range(REPEATS):  # alternating, so that a slow spell of the machine falls on both
        bare.append(seconds(lambda: bare_pass(model, batches)))
        extraction.append(seconds(lambda: extract_all(model, streams)))
    with tempfile.TemporaryDirectory() as folder:
        board = seconds(lambda: run_board(plan, registry, Path(folder), device))
        bare.append(seconds(lambda: bare_pass(model, batches)))
        timings = [json.loads(line) for line in (Path(folder) / "out/timings.jsonl").read_text().splitlines()]

    base = statistics.median(bare)
    ratios = {"extraction, cold cache": statistics.median(extraction) / base, "whole board": board / base}
    bounds = {"extraction, cold cache": EXTRACTION_BOUND, "whole board": BOARD_BOUND}
    print(
        f"bare forward pass        {base:8.2f} s  {images / base:8.0f} images/s  (of {[round(b, 2) for b in bare]})"
    )
    print(
        f"extraction, cold cache   {statistics.median(extraction):8.2f} s  (of {[round(e, 2) for e in extraction]})"
    )
    print(f"whole board              {board:8.2f} s")
    for name, ratio in ratios.items():
        print(f"{name:24s} {ratio:8.3f} times the bare pass, bound {bounds[name]:.2f}")
    print_shares(timings, base, quadratic(plan, model, streams))
    return int(any(ratio > bounds[name] for name, ratio in ratios.items()))


def load(plan: Plan, registry: Registry, device: str) -> tuple[LoadedModel, list[Stream]]:
    """Load the plan's model, trained now if it is not in the user's cache, and open what a run extracts."""
    data = open_id(plan.suite, registry)
    (planned,) = plan.models
    training = TrainingData(data.train, data.validation, data.num_classes) if data.train else None
    request = ModelRequest(
        name=planned.name,
        argument=planned.name.partition(":")[2],
        seed=planned.seed,
        data=training,
        device=device,
        store=Cache(default_root()).models,
        progress=True,
    )
    built = planned.offered.spec.build(request, **planned.params)
    parts = [data.train, data.test, *(open_set(entry, data.test, registry) for entry in plan.sets)]
    streams = [Stream.of(part, batch_size=plan.suite.batch_size) for part in parts if part is not None]
    return LoadedModel(built, device, plan.suite.dtype, planned.offered.source), streams


def bare_pass(model: LoadedModel, batches: list[torch.Tensor]) -> None:
    """Forward decoded batches and keep nothing."""
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        for batch in batches:
            model.module(model.model.preprocessing.normalise(batch.to(model.device)))


def extract_all(model: LoadedModel, streams: list[Stream]) -> None:
    """Extract every stream into a cold cache."""
    with tempfile.TemporaryDirectory() as folder:
        for stream in streams:
            extract(model, stream, Cache(Path(folder)))


def run_board(plan: Plan, registry: Registry, folder: Path, device: str) -> None:
    """Run the whole suite from a cold cache that holds the trained model alone."""
    shutil.copytree(Cache(default_root()).models, folder / "cache/models")
    run_plan(plan, registry, RunOptions(out=folder / "out", cache=folder / "cache", device=device))


def seconds(work: Callable[[], None]) -> float:
    """Time a piece of work, with the device's queue emptied."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quadratic(plan: Plan, model: LoadedModel, streams: list[Stream]) -> set[str]:
    """Name the scorers whose time to score one set grows with the training data that they were fitted on."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = (extract(model, stream, Cache(Path(folder))).features for stream in streams[:2])
        queries = FeatureSet.of(test.sample(2000, seed=0))
        halves = [FeatureSet.of(train.sample(len(train) // share, seed=0)) for share in (2, 1)]
    found = set()
    for planned in plan.scorers:
        times = []
        for half in halves:
            fitted = fit_scorer(planned, model, half, None, Clock())
            if isinstance(fitted, Failure):
                break
            scorers = {planned.label: (planned, fitted)}
            times.append(
                min(seconds(lambda s=scorers: score_features(s, queries, Clock(), on="")) for _ in range(3))
            )  # type: ignore[arg-type, misc]
        if len(times) == 2 and times[0] > 0.01 and times[1] > QUADRATIC_FROM * times[0]:
            found.add(planned.label)
    return found


def print_shares(timings: list[dict[str, object]], base: float, named: set[str]) -> None:
    """Print each scorer's seconds, and their share of the bare pass."""
    totals: dict[str, dict[str, float]] = {}
    for line in timings:
        if line["scorer"] and "seconds" in line:
            stages = totals.setdefault(str(line["scorer"]), {})
            stages[str(line["stage"])] = stages.get(str(line["stage"]), 0.0) + float(str(line["seconds"]))
    print(f"{'scorer':16s} {'fit s':>8s} {'score s':>8s} {'metrics s':>10s} {'share':>7s}")
    for scorer, stages in sorted(totals.items(), key=lambda item: -sum(item[1].values())):
        columns = [stages.get(stage, 0.0) for stage in ("fit", "score", "metrics")]
        mark = "  quadratic: queries × training data" if scorer in named else ""
        print(
            f"{scorer:16s} {columns[0]:8.2f} {columns[1]:8.2f} {columns[2]:10.2f} {sum(columns) / base:6.1%}{mark}"
        )


if __name__ == "__main__":
    sys.exit(main())
