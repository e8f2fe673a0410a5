"""The report of a kind whose records fill one table: two files, a command, and a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from harness.base.cache import write_atomically
from harness.reports.records import holds
from harness.reports.terminal import as_terminal
from harness.reports.text import Text, as_csv, as_markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    from rich.console import RenderableType

T = TypeVar("T")


@dataclass(frozen=True)
class TableReport(Generic[T]):
    """A table of one kind's records, and its text."""

    kind: str  # of the records
    name: str  # of the command, and of the files: NAME.csv and NAME.md
    help: str  # of the command
    # From the runs' folders; raises RecordsError if there are no records.
    gather: Callable[[Sequence[Path]], T]
    text: Callable[[T], Text]

    def show(self, folders: Sequence[Path]) -> Text:
        """Return the table of several runs as text. Raises RecordsError if they have no such records."""
        return self.text(self.gather(folders))

    def write(self, folder: Path) -> None:
        """Write NAME.csv and NAME.md beside the records."""
        if holds(folder, self.kind):
            text = self.show([folder])
            write_atomically(folder / f"{self.name}.csv", as_csv(text))
            write_atomically(folder / f"{self.name}.md", as_markdown(text))

    def draw(self, folder: Path, *, width: int) -> list[RenderableType]:
        """Draw the table."""
        return [as_terminal(self.show([folder]), width)] if holds(folder, self.kind) else []

    def frame(self, folder: Path) -> pd.DataFrame | None:
        """Return the table's numbers."""
        return self.show([folder]).numbers if holds(folder, self.kind) else None
