"""The report of probes in a run's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.reports.records import PROBE, holds

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType


class ProbeReport:
    """Numbers by model, set and probe."""

    def write(self, folder: Path) -> None:
        """Write probes.csv and probes.md."""
        from harness.evaluations.probes import text

        text.write_probes(folder)

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the table."""
        from harness.evaluations.probes import text
        from harness.evaluations.probes.table import probe_table

        return [text.as_terminal(probe_table([folder]))] if holds(folder, PROBE) else []

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the table's numbers, set by set."""
        from harness.evaluations.probes.table import probe_table

        return probe_table([folder]).frame if holds(folder, PROBE) else None
