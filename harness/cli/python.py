"""The harness from Python: a scorer by name, a training, a run, and the numbers of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import InputError
from harness.contract.parameters import offer_taking
from harness.contract.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from harness.evaluations.results import Results


def scorer(name: str, **parameters: object) -> Any:
    """Build an installed scorer; harness.Scorer and its kin describe its methods (`score`, `fit`, `score_images`).

    Raises UnknownNameError if no installed scorer has the name, or the scorer does not take a parameter.
    """
    return offer_taking(Registry.load(), "scorer", name, parameters).spec.build(**parameters)


def train(
    recipe: str,
    *,
    suite: str | None = None,
    seeds: Sequence[int] = (),
    out: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    progress: bool = False,
) -> list[Path]:
    """Train a recipe, by name or path, for each seed, and return the checkpoints' folders.

    The data are the suite's [id], or without a suite the recipe's [data]. Models that were trained before are reused.

    Raises HarnessError for an invalid recipe, suite or dataset, and for a training that diverged.
    """
    from harness.engine.trainer import TrainOptions, train_recipe

    options = TrainOptions(
        suite,
        tuple(seeds),
        out=_path(out),
        cache=_path(cache),
        device=device,
        progress=progress,
    )
    outcomes = list(train_recipe(recipe, options, plugins=[Path(file) for file in plugins]))
    for outcome in outcomes:
        if outcome.error is not None:
            raise InputError(outcome.error)
    return [outcome.folder for outcome in outcomes]


def run(
    suite: str,
    *,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    limit: int | None = None,
    scorers: Sequence[str] = (),
    models: Sequence[str] = (),
    fresh: bool = False,
    plugins: Sequence[str | Path] = (),
    limits: Mapping[str, object] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Run a suite, by name or path, and return its leaderboard; the run's folder holds everything else.

    A suite without scorers returns its first table: of probes, else of adapters, else of estimators.

    `scorers` and `models` choose some of the suite's, by name; the rest of the folder stays as it is. Cells that `out`
    (default: results/SUITE) holds already are not run again, unless `fresh`. A cell that fails is a missing value in
    the frame, and a record with its error in the folder.

    `limits`, such as `{"isolate": "none"}`, replace keys of the suite's table: whose methods live in worker processes,
    and the seconds and megabytes that each may take.

    Raises HarnessError for an invalid name, suite or folder, before anything is run.
    """
    from harness.engine.runner import RunOptions
    from harness.evaluations.run import prepare, reports, run_plan

    plan = prepare(
        suite,
        limit=limit,
        plugins=[Path(file) for file in plugins],
        models=models,
        scorers=scorers,
        limits=limits,
    )
    options = RunOptions(
        out=_path(out),
        cache=_path(cache),
        device=device,
        progress=progress,
        fresh=fresh,
    )
    folder = run_plan(plan, options).folder
    frames = (report.frame(folder) for report in reports(plan.registry))
    found = next((frame for frame in frames if frame is not None), None)
    if found is None:
        raise InputError(
            f"nothing of the suite applies to its models: {folder / 'run.json'} lists what is missing"
        )
    return found


def load(*folders: str | Path) -> Results:
    """Load the numbers of one or several finished runs as a long pandas frame; its `board()` is the leaderboard.

    Raises HarnessError for a folder that holds no run, and for runs that must not be compared.
    """
    from harness.evaluations.results import Results

    return Results.of([Path(folder) for folder in folders])


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
