"""Draws leaderboards in the terminal: group means on one screen, and on request every set.

The files have every detail. Here a model is a heading, a scorer that repeats another's scores is a remark, models that
did not run are named once, and failures are grouped by their cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.errors import shortened
from harness.base.names import printable
from harness.reports.board_text import (
    gain_columns,
    legend_of_mixtures,
    model_name,
    rank_range,
    value_columns,
    value_with_interval,
)
from harness.reports.record import NOT_LOADED, SEPARATE, SOURCE, title_of_model
from harness.reports.runs import GROUPS
from harness.reports.terminal import draw_sheet, natural_width
from harness.reports.text import Sheet
from harness.reports.wording import ABSENT, FPR_HEADERS, is_missing, percent, title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from harness.reports.board_text import Column
    from harness.reports.leaderboard import Board
    from harness.reports.record import Record

_NAMES = ("model", "scorer")
_UNRANKED = "csid"  # its interval is the first to go if the width is short
_CELLS_NAMED = 3  # of those that failed for one reason


def as_terminal(boards: Sequence[Board], *, width: int, with_sets: bool = False) -> RenderableType:
    """Draw one board per protocol, in tables that fit the width. A line of a legend is not repeated below the next."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    said: set[str] = set()
    for board in boards:
        sheets = [_means(board, width), *(_of_sets(board, width) if with_sets else ())]
        parts += [draw_sheet(sheet, width) for sheet in sheets if sheet.rows]
        lines = [line for line in _legend(board, with_sets=with_sets) if line not in said]
        parts.append(Text("\n".join(map(printable, lines))))
        said.update(lines)
    return Group(*parts)


def _means(board: Board, width: int) -> Sheet:
    """Return the group means with ranks; shifted ID has its interval if there is room."""
    groups = [name for name in GROUPS if name in board.sets.values()]
    leading: list[Column] = [("rank", rank_range), *gain_columns(board)]
    whole, brief = list(leading), list(leading)
    for name in groups:
        columns = value_columns(board, name)
        whole += columns
        brief += [_without_interval(board, name, columns[0]), *columns[1:]] if name == _UNRANKED else columns
    sheet = _sheet(board, "group means", whole, _heading(board))
    return sheet if natural_width(sheet) <= width else _sheet(board, "group means", brief, _heading(board))


def _of_sets(board: Board, width: int) -> Iterator[Sheet]:
    """Yield the sets of each group, as many per table as fit the width."""
    for group in GROUPS:
        names = [name for name, of in board.sets.items() if of == group]
        while names:
            count = 1
            while count < len(names) and natural_width(_sets(board, group, names[: count + 1])) <= width:
                count += 1
            yield _sets(board, group, names[:count])
            names = names[count:]


def _sets(board: Board, group: str, names: Sequence[str]) -> Sheet:
    columns = [column for name in names for column in value_columns(board, name)]
    return _sheet(board, group, columns, model_name)


def _sheet(
    board: Board, what: str, columns: Sequence[Column], heading: Callable[[dict[str, Any]], str]
) -> Sheet:
    title = board.suite if board.protocol == SEPARATE else f"{board.suite}, {board.protocol}"
    rows = [[heading(row), row["scorer"], *(cell(row) for _, cell in columns)] for row in _shown(board)]
    headers = [*_NAMES, *(header.replace(" pos.)", ")") for header, _ in columns)]  # the legend spells it out
    return Sheet(f"{title}: {what}", headers, rows, _NAMES, has_headings=True)


def _without_interval(board: Board, name: str, column: Column) -> Column:
    return column[0], lambda row: percent(row[f"{name}_{board.metric}"])


def _heading(board: Board) -> Callable[[dict[str, Any]], str]:
    """Describe the model of a row: its accuracy on ID, and the preprocessing of its images."""

    def heading(row: dict[str, Any]) -> str:
        accuracy = value_with_interval(row, "id_accuracy")
        facts = [] if accuracy == ABSENT else [f"ID accuracy {accuracy}"]
        facts += [stated] if (stated := board.preprocessing.get(row["model"])) else []
        return f"{model_name(row)}: {'; '.join(facts)}" if facts else model_name(row)

    return heading


def _shown(board: Board) -> list[dict[str, Any]]:
    """Return the rows that say something of their own: no second names, and nothing that did not run."""
    absent = {*board.not_applicable, *_never_ran(board)}
    return [
        row
        for row in board.rows
        if is_missing(row["same_as"]) and (row["model"], row["adapter"], row["scorer"]) not in absent
    ]


def _never_ran(board: Board) -> set[tuple[str, str, str]]:
    """Return the rows whose model was never loaded."""
    found = set()
    for remark in board.remarks:
        if remark.failed and all(map(_is_unloaded, remark.failed)):
            first = remark.failed[0]
            found.add((first.model, first.adapter, str(first.scorer)))
    numbers = {
        (row["model"], row["adapter"], row["scorer"])
        for row in board.rows
        if not all(is_missing(row[f"{name}_{board.metric}"]) for name in board.sets)
    }
    return found - numbers


def _is_unloaded(record: Record) -> bool:
    return str(record.error).startswith(NOT_LOADED)


def _legend(board: Board, *, with_sets: bool) -> list[str]:
    title = title_of(board.metric)
    interval = " with its 95 % interval" if board.metric == "auroc" else ""
    shown = title if board.metric == board.fpr else f"{title}{interval} and FPR95"
    by = "mean of near and far" if board.group == "all" else f"mean of {board.group}"
    more = "" if with_sets else " All sets: ood-harness leaderboard DIR --sets."
    return [
        f"{shown} in per cent. {FPR_HEADERS[board.fpr]}.{more}",
        f"Order: {by}. Rank: range by paired tests of AUROC within a model (Holm). {ABSENT}: missing.",
        *legend_of_mixtures(board),
        _members(board),
        *_remarks(board),
        *_not_applicable(board),
        *_failures(board),
    ]


def _members(board: Board) -> str:
    members = {group: [name for name, of in board.sets.items() if of == group] for group in GROUPS}
    titles = {_UNRANKED: f"{_UNRANKED} (shifted ID, not ranked)"}
    return " ".join(
        f"{titles.get(group, group)}: {shortened(names)}." for group, names in members.items() if names
    )


def _remarks(board: Board) -> Iterator[str]:
    """Yield each remark once, with all the models that it is about."""
    subjects: dict[str, list[str]] = {}
    for remark in board.remarks:
        if not remark.failed:
            subjects.setdefault(remark.text, []).append(remark.subject)
    for text, about in subjects.items():
        yield f"{_all_or_listed(about, board)}{text}."


def _not_applicable(board: Board) -> Iterator[str]:
    by_scorer: dict[str, list[str]] = {}
    for model, adapter, scorer in board.not_applicable:
        by_scorer.setdefault(scorer, []).append(model if adapter == SOURCE else f"{model} + {adapter}")
    listed = [f"{scorer} ({shortened(models)})" for scorer, models in by_scorer.items()]
    if listed:
        yield f"Not applicable: {shortened(listed)}."


def _failures(board: Board) -> Iterator[str]:
    """Yield the models that did not run, and then one line per cause of other failures."""
    unloaded: dict[str, list[str]] = {}
    causes: dict[str, list[Record]] = {}
    for record in (record for remark in board.remarks for record in remark.failed):
        if _is_unloaded(record):
            models = unloaded.setdefault(str(record.error).removeprefix(NOT_LOADED), [])
            models.append(title_of_model(record.model, record.seed))
        else:
            causes.setdefault(str(record.error), []).append(record)
    for cause, models in unloaded.items():
        yield f"Did not run: {shortened(dict.fromkeys(models))}: {cause}"
    for cause, records in _most_first(causes):
        cells = "cell" if len(records) == 1 else "cells"
        titles = shortened([record.title for record in records], _CELLS_NAMED)
        yield f"{len(records)} {cells} failed: {cause} ({titles})"


def _most_first(causes: Mapping[str, list[Record]]) -> Iterable[tuple[str, list[Record]]]:
    return sorted(causes.items(), key=lambda entry: -len(entry[1]))


def _all_or_listed(subjects: Sequence[str], board: Board) -> str:
    """Name the subjects of a remark; none if it is about all models of the board."""
    models = {row["model"] for row in board.rows}
    return "" if models == set(subjects) else f"{shortened(dict.fromkeys(subjects))}: "
