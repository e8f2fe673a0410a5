"""The estimators of a suite, and the shifted data on which their curves are fitted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.base.toml import Table
from harness.data.tables import Seed
from harness.engine.suite import PluginEntries, Section, Suite


class EstimationTable(Table):
    """The shifted ID validation data on which curves are fitted, and the number of images that estimators see."""

    corrupt: list[str] | None = None  # None: the kinds that the plugin sets aside for calibration
    severity: list[int] = [1, 2, 3, 4, 5]
    size: Annotated[int, Field(gt=1)] | None = None  # images of a set, at most; None: all
    seed: Seed = 0  # of the estimators' random draws


class EstimationSection(Section):
    """The keys `estimators` and `estimation`."""

    estimators: PluginEntries = []
    estimation: EstimationTable = EstimationTable()


def settings(suite: Suite) -> EstimationTable:
    """Return a suite's [estimation]."""
    return suite.section(EstimationSection).estimation
