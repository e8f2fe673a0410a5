"""The leaderboards of a run's folder, as the report of its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.reports.record import SCORE
from harness.reports.records import read_records

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType


class Boards:
    """One leaderboard per protocol."""

    def write(self, folder: Path) -> None:
        """Write leaderboard.csv, leaderboard.md and leaderboard.parquet."""
        from harness.reports.board_text import write_boards

        write_boards(folder)

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the leaderboards; none if every score failed."""
        from harness.reports.board_text import as_terminal
        from harness.reports.leaderboard import leaderboards

        if not any(r.kind == SCORE and not r.error for r in read_records(folder)):
            return []
        return [as_terminal(board, width=width) for board in leaderboards([folder])]

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the leaderboards' rows."""
        from harness.reports.board_text import joined
        from harness.reports.leaderboard import leaderboards
        from harness.reports.records import holds

        return joined(leaderboards([folder])) if holds(folder, SCORE) else None
