"""The report of a kind whose records make one table: files beside the records, a drawing, and a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.cache import write_atomically
from harness.reports.records import holds
from harness.reports.text import Text, as_csv, as_markdown, as_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType


@dataclass(frozen=True)
class TableReport:
    """A table of one kind's records, and how it is shown."""

    kind: str  # of the records
    name: str  # of the command, and of the files: NAME.csv and NAME.md
    help: str  # of the command
    show: Callable[
        [Sequence[Path]], Text
    ]  # from the runs' folders; it raises RecordsError if there is nothing

    def write(self, folder: Path) -> None:
        """Write NAME.csv and NAME.md beside the records."""
        if holds(folder, self.kind):
            text = self.show([folder])
            write_atomically(folder / f"{self.name}.csv", as_csv(text))
            write_atomically(folder / f"{self.name}.md", as_markdown(text))

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the table."""
        return [as_terminal(self.show([folder]))] if holds(folder, self.kind) else []

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the table's numbers."""
        return self.show([folder]).numbers if holds(folder, self.kind) else None
