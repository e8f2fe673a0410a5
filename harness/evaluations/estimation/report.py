"""The report of estimators in a run's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.reports.records import ESTIMATE, holds

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType


class EstimationReport:
    """Errors of estimated accuracies."""

    def write(self, folder: Path) -> None:
        """Write estimates.csv and estimates.md."""
        from harness.evaluations.estimation import text

        text.write_estimates(folder)

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the table."""
        from harness.evaluations.estimation import text
        from harness.evaluations.estimation.table import estimate_table

        return [text.as_terminal(estimate_table([folder]))] if holds(folder, ESTIMATE) else []

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the table's numbers, set by set."""
        from harness.evaluations.estimation.table import estimate_table

        return estimate_table([folder]).frame if holds(folder, ESTIMATE) else None
