"""Plans a suite and runs it through all kinds of evaluation: the built-in ones, and those that plugins offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.errors import PluginError
from harness.contract.bases import read_based
from harness.contract.registry import Registry
from harness.engine.evaluation import Evaluation
from harness.engine.plan import make_plan
from harness.engine.runner import Run, RunOptions, RunResult
from harness.engine.suite import parse_suite
from harness.evaluations import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.engine.evaluation import Report
    from harness.engine.plan import Plan
    from harness.engine.suite import Suite


def kinds_of(registry: Registry) -> tuple[Evaluation[Any], ...]:
    """Return the built-in kinds of evaluation, and then those that plugins offer."""
    found = []
    for offered in registry.offers("evaluation"):
        kind = offered.spec.build()
        if not isinstance(kind, Evaluation):
            name = offered.spec.name
            raise PluginError(f"the evaluation {name!r} of {offered.plugin} is no harness.Evaluation")
        found.append(kind)
    return (*KINDS, *found)


def prepare(
    suite: str,
    *,
    limit: int | None = None,
    plugins: Sequence[Path] = (),
    models: Sequence[str] = (),
    scorers: Sequence[str] = (),
    limits: Mapping[str, object] | None = None,
) -> Plan:
    """Load the plugins and a suite, by name or path, and resolve all its names; keep some models or scorers alone.

    `limits` replace keys of the suite's table of that name.
    """
    registry = Registry.load(plugins)
    path = registry.path("suite", suite)
    content = read_based(path, "suite", registry, name=suite)
    if limits:
        content = {**content, "limits": {**content.get("limits", {}), **limits}}
    plan = plan_suite(content, registry, source=path.name, limit=limit, folder=path.parent)
    return plan.narrowed(models=models, scorers=scorers)


def read_suite(content: Mapping[str, Any], registry: Registry, *, source: str) -> Suite:
    """Validate a suite's content, with the sections of all kinds."""
    sections = list(dict.fromkeys(kind.section for kind in kinds_of(registry) if kind.section.keys()))
    return parse_suite(content, registry, sections, source=source)


def plan_suite(
    content: Mapping[str, Any],
    registry: Registry,
    *,
    source: str,
    limit: int | None = None,
    folder: Path | None = None,
) -> Plan:
    """Plan a suite given by its content, and let every kind check its part. `folder`: where relative paths start."""
    suite, kinds = read_suite(content, registry, source=source), kinds_of(registry)
    workers = {key: of_key for kind in kinds for key, of_key in kind.workers(suite, registry).items()}
    plan = make_plan(suite, registry, workers, limit=limit, folder=folder)
    for kind in kinds:
        kind.check(plan)
    _require_own_places(plan, kinds)
    return plan


def _require_own_places(plan: Plan, kinds: Sequence[Evaluation[Any]]) -> None:
    """Raise PluginError if two cells have one place: their records would replace each other."""
    first: dict[str, str] = {}
    for kind in kinds:
        for cell in (cell for model in plan.models for cell in kind.cells(plan, model)):
            if cell.cell_id in first:
                names = " and ".join(dict.fromkeys((first[cell.cell_id], kind.name)))
                raise PluginError(
                    f"the evaluation {names} has two cells of one place, on {cell.on}. Name them apart"
                )
            first[cell.cell_id] = kind.name


def run_plan(plan: Plan, options: RunOptions) -> RunResult:
    """Measure every cell of a plan that its folder does not hold yet, and write the reports."""
    run = Run(plan, options, kinds_of(plan.registry))
    try:
        folder = run.execute().folder
        for report in reports(plan.registry):
            report.write(folder)
        plan.registry.notify("harness_run_end", folder=folder)
    finally:
        run.folder.close()
    return run.result()


def reports(registry: Registry) -> Iterator[Report]:
    """Yield the reports of all kinds, in the kinds' order."""
    for kind in kinds_of(registry):
        if kind.report is not None:
            yield kind.report
