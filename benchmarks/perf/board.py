"""What a board costs beside the bare forward pass, measured side by side in one run.

    OOD_HARNESS_DATA=... python benchmarks/perf/board.py [SUITE] [--device DEVICE]

The bare pass forwards the same images, decoded beforehand, in the same batches, and keeps nothing. Extraction decodes,
forwards and fills a cold cache. The rest of the board is a whole run that finds the features in the cache: data opened
and checked, fits, scores, metrics, intervals, ranks, files. The model is trained beforehand.

The speed of a shared machine wanders by a factor of two within minutes, so the images are cut into pieces, bare pass
and extraction take turns on each, and the rest is measured three times among them; sums are compared. Exit 1 where a
ratio is above its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harness.base.cache import Cache, default_root
from harness.contract.features import FeatureSet
from harness.data.opening import open_id, open_set
from harness.data.streams import Stream
from harness.engine.clock import Clock
from harness.engine.guard import Failure
from harness.engine.loading import Loader
from harness.engine.manifest import device_name
from harness.engine.plan import Plan
from harness.engine.runner import RunOptions
from harness.engine.workbench import Workbench
from harness.evaluations.run import prepare, run_plan
from harness.evaluations.scores.features import score_features
from harness.models.extract import Counts, extract
from harness.models.loaded import LoadedModel, resolve_device

EXTRACTION_BOUND, BOARD_BOUND = 1.10, 1.30
QUADRATIC_FROM = 1.5  # a scorer whose scoring slows by this when its training data double
BATCHES_A_PIECE = 16
REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", default="fashion-mnist")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    plan = prepare(arguments.suite)
    plan = replace(plan, models=plan.models[:1])
    model, streams = load(plan, device)
    images = sum(map(len, streams))
    print(f"{arguments.suite}, {plan.models[0].label}: {images} images in {len(streams)} streams")
    print(f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    pieces = [piece for stream in streams for piece in cut(stream)]
    time_piece(model, pieces[0], extraction_first=True)
    run_board(plan, device)  # fills the user's cache
    passes, rests = [], []
    for number, piece in enumerate(pieces):
        passes.append(time_piece(model, piece, extraction_first=number % 2 == 0))
        if number % (len(pieces) // REPEATS) == 0 and len(rests) < REPEATS:
            rests.append(run_board(plan, device))
    bare, extraction = (sum(column) for column in zip(*passes, strict=True))
    rest = sum(seconds for seconds, _ in rests) / len(rests)
    timings = [line for _, lines in rests for line in lines]

    print(f"{'':34s} {'seconds':>8s} {'ratio':>6s} {'bound':>6s}")
    print(f"{'bare forward pass':34s} {bare:8.2f} {1:6.3f}         {images / bare:.0f} images/s")
    print(
        f"{'extraction, cold cache':34s} {extraction:8.2f} {extraction / bare:6.3f} {EXTRACTION_BOUND:6.2f}"
    )
    print(f"{'rest of the board':34s} {rest:8.2f} {rest / bare:6.3f}")
    whole = (extraction + rest) / bare
    print(f"{'whole board':34s} {extraction + rest:8.2f} {whole:6.3f} {BOARD_BOUND:6.2f}")
    print_shares(timings, bare, quadratic(plan, model, streams))
    return int(extraction > EXTRACTION_BOUND * bare or whole > BOARD_BOUND)


def load(plan: Plan, device: str) -> tuple[LoadedModel, list[Stream]]:
    """Load the plan's model, trained now if it is not in the user's cache, and open what a run extracts."""
    registry = plan.registry
    data = open_id(plan.suite.id, registry)
    (planned,) = plan.models
    loader = Loader(registry, Cache(default_root()), device, progress=True)
    model = loader.load(planned, data, dtype=plan.suite.dtype)
    parts = [data.train, data.test, *(open_set(entry, data, registry) for entry in plan.sets)]
    streams = [Stream.of(part, batch_size=plan.suite.batch_size) for part in parts if part is not None]
    return model, streams


def cut(stream: Stream) -> list[Stream]:
    """Cut a stream into shorter ones with the same batches."""
    step = BATCHES_A_PIECE * stream.batch_size
    (part,) = stream.parts
    return [
        Stream.of(part.take(np.arange(start, min(start + step, len(part)))), batch_size=stream.batch_size)
        for start in range(0, len(part), step)
    ]


def time_piece(model: LoadedModel, piece: Stream, *, extraction_first: bool) -> tuple[float, float]:
    """Time the bare pass and the extraction of one piece."""
    batches = [model.model.preprocessing.batch(piece.images(batch)) for batch in piece.batches()]
    if extraction_first:
        extraction = seconds(lambda: extract_cold(model, piece))
        return seconds(lambda: bare_pass(model, batches)), extraction
    return seconds(lambda: bare_pass(model, batches)), seconds(lambda: extract_cold(model, piece))


def bare_pass(model: LoadedModel, batches: list[torch.Tensor]) -> None:
    """Forward decoded batches and keep nothing."""
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        for batch in batches:
            model.module(model.model.preprocessing.normalise(batch.to(model.device)))


def extract_cold(model: LoadedModel, stream: Stream) -> None:
    """Extract a stream into a cold cache."""
    with tempfile.TemporaryDirectory() as folder:
        extract(model, stream, Cache(Path(folder)))


def run_board(plan: Plan, device: str) -> tuple[float, list[dict[str, object]]]:
    """Run the whole suite into a new folder; the user's cache has the model, and from the first time the features."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        spent = seconds(lambda: run_plan(plan, RunOptions(out=out, device=device)))
        return spent, [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]


def seconds(work: Callable[[], object]) -> float:
    """Time a piece of work, with the device's queue emptied."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quadratic(plan: Plan, model: LoadedModel, streams: list[Stream]) -> set[str]:
    """Name the scorers whose time to score one set grows with the training data that they were fitted on."""
    cache, size = Cache(default_root()), plan.suite.batch_size
    bench = Workbench("model", model, {}, size, cache, Counts(), Clock())
    train, test = (bench.features(stream.name, stream) for stream in streams[:2])
    queries = FeatureSet.of(test.sample(2000, seed=0))
    halves = [FeatureSet.of(train.sample(len(train) // share, seed=0)) for share in (2, 1)]
    found = set()
    for planned in plan.named("scorers"):
        times = []
        for half in halves:
            fitted = bench.fit(planned, {"train": half})
            if isinstance(fitted, Failure):
                break
            scorers = {planned.label: (planned, fitted)}
            times.append(
                min(seconds(lambda s=scorers: score_features(s, queries, Clock(), on="")) for _ in range(3))
            )  # type: ignore[arg-type, misc]
        if len(times) == 2 and times[0] > 0.01 and times[1] > QUADRATIC_FROM * times[0]:
            found.add(planned.label)
    return found


def print_shares(timings: list[dict[str, object]], bare: float, named: set[str]) -> None:
    """Print each scorer's seconds in one run, and their share of the bare pass."""
    totals: dict[str, dict[str, float]] = {}
    for line in timings:
        if line["scorer"] and "seconds" in line:
            stages = totals.setdefault(str(line["scorer"]), {})
            stages[str(line["stage"])] = (
                stages.get(str(line["stage"]), 0.0) + float(str(line["seconds"])) / REPEATS
            )
    print(f"\n{'scorer':16s} {'fit s':>8s} {'score s':>8s} {'metrics s':>10s} {'share':>7s}")
    for scorer, stages in sorted(totals.items(), key=lambda item: -sum(item[1].values())):
        columns = [stages.get(stage, 0.0) for stage in ("fit", "score", "metrics")]
        mark = "  quadratic: samples × training data" if scorer in named else ""
        print(
            f"{scorer:16s} {columns[0]:8.2f} {columns[1]:8.2f} {columns[2]:10.2f} {sum(columns) / bare:6.1%}{mark}"
        )


if __name__ == "__main__":
    sys.exit(main())
