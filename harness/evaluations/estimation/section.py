"""What a suite says of estimators: which, and on which shifted data their curves are fitted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.base.toml import Table
from harness.engine.suite import PluginEntries, Section, Suite


class EstimationTable(Table):
    """On which shifted ID validation data the curves of estimators are fitted, and how many images one looks at."""

    corrupt: list[str] | None = None  # None: those that the plugin sets aside for calibration
    severity: list[int] = [1, 2, 3, 4, 5]
    size: Annotated[int, Field(gt=1)] | None = None  # images of a set, at most; None: all
    seed: int = 0  # of what estimators draw


class EstimationSection(Section):
    """The keys `estimators` and `estimation`."""

    estimators: PluginEntries = []
    estimation: EstimationTable = EstimationTable()

    @classmethod
    def tables(cls) -> dict[str, type[Table]]:
        """Return the section's one table."""
        return {"estimation": EstimationTable}


def settings(suite: Suite) -> EstimationTable:
    """Return a suite's [estimation]."""
    return suite.section(EstimationSection).estimation
