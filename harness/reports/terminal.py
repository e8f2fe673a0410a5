"""Draws reports in the terminal. A table fits the width: numbers are never cut, and names are folded, not cut.

If a table is too wide, its last columns are left out and named below it; the files and the other formats have them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

from rich.cells import cell_len

from harness.base.names import printable
from harness.reports.text import Format, Sheet, Text, as_csv, as_json, as_markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

LOG_WIDTH = 100  # characters of a line in a file or a pipe
_GAP = 2  # characters between columns
_INDENT = 2  # of the rows below a heading
_NARROWEST_NAMES = 20  # characters: names are folded to these at most, before columns are left out


def terminal_width() -> int:
    """Return the width of the terminal, or what COLUMNS names; of a file or a pipe, LOG_WIDTH."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal or "COLUMNS" in os.environ else LOG_WIDTH


def as_terminal(text: Text, width: int) -> RenderableType:
    """Draw the tables that have rows, and the legend below them."""
    from rich.console import Group
    from rich.text import Text as Lines

    drawn = [draw_sheet(sheet, width) for sheet in text.sheets if sheet.rows]
    return Group(*drawn, Lines("\n".join(map(printable, text.legend))))


def draw_sheet(sheet: Sheet, width: int) -> RenderableType:
    """Draw a table that fits the width, with its title above."""
    from rich.console import Group
    from rich.text import Text as Lines

    shown, left_out = _fitting(_printable(sheet), width)
    widths = _folded(shown, width)
    parts: list[RenderableType] = [Lines(sheet.title, style="bold"), _block(shown, widths, [], is_head=True)]
    for heading, rows in _blocks(shown):
        if heading:
            parts.append(Lines(heading, style="bold"))
        parts.append(_block(shown, widths, rows))
    if left_out:
        parts.append(Lines(f"Left out at this width: {', '.join(map(_on_one_line, left_out))}."))
    return Group(*parts)


def _printable(sheet: Sheet) -> Sheet:
    """Escape what a terminal would obey."""
    return replace(
        sheet,
        title=printable(sheet.title),
        headers=[*map(printable, sheet.headers)],
        rows=[[*map(printable, row)] for row in sheet.rows],
        names=[*map(printable, sheet.names)],
    )


def natural_width(sheet: Sheet) -> int:
    """Return the width of the table if no name is folded and no column left out; headings are folded anyway."""
    return _total(_widths(sheet))


def show(text: Text, format: Format) -> None:
    """Print a report."""
    import typer

    if format is Format.table:
        draw(as_terminal(text, terminal_width()))
        return
    writers = {Format.md: as_markdown, Format.csv: as_csv, Format.json: as_json}
    typer.echo(writers[format](text), nl=False)


def draw(drawing: RenderableType) -> None:
    """Print a drawing at the terminal's width."""
    from rich.console import Console

    Console(width=terminal_width()).print(drawing)


def _fitting(sheet: Sheet, width: int) -> tuple[Sheet, list[str]]:
    """Leave out the last columns of numbers until the others fit; the first one always stays."""
    numbers = [place for place, header in enumerate(sheet.headers) if header not in sheet.names]
    shown, left_out = sheet, 0
    while _narrowest(shown) > width and left_out < len(numbers) - 1:
        left_out += 1
        gone = set(numbers[len(numbers) - left_out :])
        kept = [place for place in range(len(sheet.headers)) if place not in gone]
        rows = [[row[place] for place in kept] for row in sheet.rows]
        shown = replace(sheet, headers=[sheet.headers[place] for place in kept], rows=rows)
    return shown, [sheet.headers[place] for place in numbers[len(numbers) - left_out :]]


def _narrowest(sheet: Sheet) -> int:
    """Return the least width of the table, with its widest name folded."""
    widths = _widths(sheet)
    foldable = [widths[place] for place in _places_of_names(sheet)]
    return _total(widths) - max((wide - min(wide, _NARROWEST_NAMES) for wide in foldable), default=0)


def _folded(sheet: Sheet, width: int) -> list[int]:
    """Return the columns' widths: headers are on one line if all fit; else the widest column of names may be folded."""
    widths = _widths(sheet)
    headers = [cell_len(sheet.headers[place]) for place in _columns(sheet)]
    on_one_line = [max(pair) for pair in zip(widths, headers, strict=True)]
    if _total(on_one_line) <= width:
        return on_one_line
    places = _places_of_names(sheet)
    if places and (excess := _total(widths) - width) > 0:
        widest = max(places, key=widths.__getitem__)
        widths[widest] = max(min(widths[widest], _NARROWEST_NAMES), widths[widest] - excess)
    return widths


def _widths(sheet: Sheet) -> list[int]:
    """Return the columns' widths: of their cells, and of the longest word of the header."""

    def wide(place: int) -> int:
        words = sheet.headers[place].split()
        return max(map(cell_len, [*words, *(row[place] for row in sheet.rows)]), default=0)

    widths = [wide(place) for place in _columns(sheet)]
    if sheet.has_headings:
        widths[0] += _INDENT
    return widths


def _columns(sheet: Sheet) -> range:
    """Return the places of the columns, without that of the headings."""
    return range(1 if sheet.has_headings else 0, len(sheet.headers))


def _places_of_names(sheet: Sheet) -> list[int]:
    """Return the places of the columns of names among the columns that are drawn."""
    return [at for at, place in enumerate(_columns(sheet)) if sheet.headers[place] in sheet.names]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _blocks(sheet: Sheet) -> list[tuple[str, list[Sequence[str]]]]:
    """Cut the rows into blocks, each with its heading; "" if it has none."""
    if sheet.has_headings:
        return [(heading, list(rows)) for heading, rows in groupby(sheet.rows, key=itemgetter(0))]
    starts = [0, *(start for start in sheet.sections if 0 < start < len(sheet.rows)), len(sheet.rows)]
    blocks = [list(sheet.rows[start:stop]) for start, stop in pairwise(starts)]
    first, *others = blocks
    blank = [""] * len(sheet.headers)
    return [("", first), *(("", [blank, *rows]) for rows in others)]


def _block(
    sheet: Sheet, widths: Sequence[int], rows: Sequence[Sequence[str]], *, is_head: bool = False
) -> RenderableType:
    """Draw rows below each other in columns of the given widths, or the header alone."""
    from rich.table import Table
    from rich.text import Text as Lines

    table = Table(box=None, show_header=is_head, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False)
    indent = " " * _INDENT if sheet.has_headings else ""
    columns = list(_columns(sheet))
    for place, wide in zip(columns, widths, strict=True):
        is_name = sheet.headers[place] in sheet.names
        header = (indent if place == columns[0] else "") + sheet.headers[place]
        table.add_column(
            Lines(header),
            justify="left" if is_name else "right",
            width=wide,
            overflow="fold",
            vertical="bottom",
        )
    for row in rows:  # not as markup: a name may contain brackets
        table.add_row(*(Lines((indent if place == columns[0] else "") + row[place]) for place in columns))
    return table


def _on_one_line(header: str) -> str:
    return " ".join(header.split())
