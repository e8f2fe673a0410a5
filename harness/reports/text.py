"""The text of a report, and its writers for files: Markdown, CSV and JSON. harness.reports.terminal draws it.

A `Text` is the content of a report: tables of cells for people, with a legend, and numbers at full precision for
programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.reports.wording import csv_of, json_of, markdown_table, markdown_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


class Format(StrEnum):
    """The output format of a report."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


@dataclass(frozen=True)
class Sheet:
    """A table of cells for people."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: Sequence[str]  # the headers of columns of names, which are left-aligned
    sections: Sequence[int] = ()  # numbers of the rows with a blank line above, in the terminal
    has_headings: bool = False  # whether the terminal shows the first column as headings between the rows


@dataclass(frozen=True, eq=False)
class Text:
    """A report: its tables and legend, and its numbers."""

    sheets: Sequence[Sheet]
    legend: Sequence[str]
    numbers: pd.DataFrame  # for CSV
    content: Mapping[str, Any]  # for JSON; frames become lists of objects
    wide: Sequence[Sheet] = ()  # for documents, if they show the tables side by side


def as_csv(text: Text) -> str:
    """Write the numbers at full precision; a missing value is an empty field."""
    return csv_of(text.numbers)


def as_json(text: Text) -> str:
    """Write the content at full precision; a missing value is null."""
    return json_of(text.content)


def as_markdown(text: Text) -> str:
    """Write the tables that have rows, and the legend below them."""
    tables = [markdown_table(sheet.headers, sheet.rows) for sheet in text.wide or text.sheets if sheet.rows]
    return "\n\n".join([*tables, "\n".join(f"- {markdown_text(line)}" for line in text.legend)]) + "\n"
