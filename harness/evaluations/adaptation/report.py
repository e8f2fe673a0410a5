"""The report of adapters in a run's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.reports.records import ADAPTATION, holds

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType


class AdaptationReport:
    """Errors by model, adapter and protocol."""

    def write(self, folder: Path) -> None:
        """Write adaptation.csv and adaptation.md."""
        from harness.evaluations.adaptation import text

        text.write_adaptation(folder)

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the table."""
        from harness.evaluations.adaptation import text
        from harness.evaluations.adaptation.table import adaptation_table

        return [text.as_terminal(adaptation_table([folder]))] if holds(folder, ADAPTATION) else []

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the table's numbers, set by set."""
        from harness.evaluations.adaptation.table import adaptation_table

        return adaptation_table([folder]).frame if holds(folder, ADAPTATION) else None
