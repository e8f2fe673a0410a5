"""Runs a plan through all kinds of evaluation, and writes their reports beside the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.runner import Run, RunOptions, RunResult
from harness.evaluations import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.contract.registry import Registry
    from harness.engine.evaluation import Report
    from harness.engine.plan import Plan


def run_plan(plan: Plan, registry: Registry, options: RunOptions) -> RunResult:
    """Run every cell of a plan that its folder does not hold yet, and write the reports."""
    run = Run(plan, registry, options, KINDS)
    folder = run.execute().folder
    for report in reports():
        report.write(folder)
    registry.notify("harness_run_end", folder=folder)
    return run.result()


def reports() -> Iterator[Report]:
    """Yield the reports of all kinds, in the kinds' order."""
    for kind in KINDS:
        if kind.report is not None:
            yield kind.report
