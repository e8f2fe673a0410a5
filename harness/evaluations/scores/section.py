"""The scorers of a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import InputError, PluginError
from harness.engine.plan import Planned, taken
from harness.engine.suite import PluginEntries, PluginEntry, Section, Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.contract.registry import Registry
    from harness.engine.plan import Plan

ALL_SCORERS = "*"


class ScoreSection(Section):
    """The key `scorers`."""

    scorers: PluginEntries = [PluginEntry(name=ALL_SCORERS)]


def planned_scorers(suite: Suite, registry: Registry) -> Iterator[Planned]:
    """Resolve the scorers of a suite; `*` stands for all that are installed, less two kinds.

    Those that adapt the model cost many passes, and unstable ones may mislead, so a suite names them on purpose.
    """
    for entry in suite.section(ScoreSection).scorers:
        if entry.name != ALL_SCORERS:
            yield Planned(*taken("scorer", entry, registry, suite.limits.isolation))
            continue
        for installed in registry.names("scorer"):
            try:
                offered = registry.get("scorer", installed)
            except PluginError:
                continue  # two plugins offer it: the registry has reported it among its problems
            if offered.spec.is_default:
                yield Planned(installed, offered, {})


def check(plan: Plan) -> None:
    """Raise InputError for a suite that measures nothing."""
    suite, workers = plan.suite, plan.workers
    others = [key for key in workers if key != "scorers"]
    if any(workers[key] for key in others):
        return
    for name, given in (("scorers", workers["scorers"]), ("ood", suite.ood)):
        if not given:
            either = f"{', '.join(others[:-1])} or {others[-1]}"
            raise InputError(f"there are no {name}, and no {either} either. Name some")
