"""The leaderboards of a run's folder, as the report of its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.cache import write_atomically
from harness.reports.board_terminal import as_terminal
from harness.reports.board_text import as_csv, as_markdown, joined
from harness.reports.leaderboard import leaderboards
from harness.reports.record import SCORE
from harness.reports.records import holds, read_records
from harness.reports.samples import write_samples

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType


class Boards:
    """One leaderboard per protocol."""

    def write(self, folder: Path) -> None:
        """Write leaderboard.csv, .md and .parquet, and scores.parquet; nothing if no scorer applied."""
        if holds(folder, SCORE):
            boards = leaderboards([folder])
            write_atomically(folder / "leaderboard.csv", as_csv(*boards))
            write_atomically(folder / "leaderboard.md", as_markdown(*boards))
            joined(boards).to_parquet(folder / "leaderboard.parquet", index=False)
            write_samples(folder)

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the leaderboards; none if every score failed."""
        if not any(r.kind == SCORE and not r.error for r in read_records(folder)):
            return []
        return [as_terminal(leaderboards([folder]), width=width)]

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the leaderboards' rows."""
        return joined(leaderboards([folder])) if holds(folder, SCORE) else None
