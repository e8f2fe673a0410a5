"""Leaderboards as text: Markdown, CSV, JSON and LaTeX, with everything. Shares are in per cent."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.reports.record import SEPARATE, SOURCE
from harness.reports.runs import GROUPS
from harness.reports.wording import (
    ABSENT,
    FPR_HEADERS,
    csv_of,
    difference,
    is_missing,
    json_of,
    latex_table,
    markdown_table,
    markdown_text,
    percent,
    title_of,
    with_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from harness.reports.leaderboard import Board

    Column = tuple[str, Callable[[dict[str, Any]], str]]  # the header, and the cell of a row


class BoardFormat(StrEnum):
    """The output format of a leaderboard: drawn in the terminal, or written by one of WRITERS."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"


def joined(boards: Sequence[Board]) -> pd.DataFrame:
    """Put the rows of several protocols into one frame, protocol after protocol."""
    import pandas as pd

    if len(boards) == 1:
        return boards[0].frame
    return pd.concat([board.frame for board in boards], ignore_index=True)


def as_csv(*boards: Board) -> str:
    """Write every column at full precision; – is an empty field."""
    return csv_of(joined(boards))


def as_json(*boards: Board) -> str:
    """Write the rows as objects at full precision, with the board's own keys; several boards as a list."""
    written = []
    for board in boards:
        head = {
            "suite": board.suite,
            "protocol": board.protocol,
            "metric": board.metric,
            "fpr95": FPR_HEADERS[board.fpr],
            "notes": board.notes,
        }
        written.append(json_of(head | {"rows": board.frame}))
    return written[0] if len(written) == 1 else "[\n" + ",\n".join(written) + "]\n"


def as_markdown(*boards: Board) -> str:
    """Write one table per protocol with every column, and its legend."""
    tables = []
    for board in boards:
        lines = "\n".join(f"- {markdown_text(line)}" for line in legend(board))
        tables.append(f"{markdown_table(*_whole_table(board))}\n\n{lines}\n")
    if len(tables) == 1:
        return tables[0]
    return "\n".join(f"## {board.protocol}\n\n{table}" for board, table in zip(boards, tables, strict=True))


def as_latex(*boards: Board) -> str:
    """Write one booktabs table per protocol with every column."""
    return "\n".join(_latex_table(board) for board in boards)


def _latex_table(board: Board) -> str:
    headers, rows = _whole_table(board)
    return latex_table(headers, rows, legend(board), names=2)


def legend(board: Board) -> list[str]:
    """Explain how to read the board."""
    title = title_of(board.metric)
    shown = title if board.metric == board.fpr else f"{title} and FPR95"
    interval = ", AUROC with its 95 % interval" if board.metric == "auroc" else ""
    by = "the mean of the near and far means" if board.group == "all" else f"the {board.group} mean"
    lines = [
        f"{shown} in per cent{interval}. {FPR_HEADERS[board.fpr]}.",
        f"Order: {by}. csid, shifted ID, is shown and never ranked.",
        "Rank: the range by paired tests of AUROC within a model, Holm-adjusted over all pairs.",
        *legend_of_mixtures(board),
        f"{ABSENT}: not applicable, not measured, or not ranked because a cell is missing.",
    ]
    accuracies = {model_name(row): value_with_interval(row, "id_accuracy") for row in board.rows}
    members = {group: [name for name, of in board.sets.items() if of == group] for group in GROUPS}
    groups = [f"{group}: {', '.join(names)}." for group, names in members.items() if names]
    models = [f"{model}: ID accuracy {accuracy}." for model, accuracy in accuracies.items()]
    return lines + groups + models + board.notes


def legend_of_mixtures(board: Board) -> list[str]:
    """Explain the streams of a mixture; [] for a board without mixtures."""
    kind, _, shares = board.protocol.partition(" ")
    if not shares:
        return []
    percent = dict(zip(("ID", "shifted ID", "OOD"), shares.split("/"), strict=True))
    parts = ", ".join(f"{share} % {name}" for name, share in percent.items() if share != "0")
    how = "each side by itself" if kind == SEPARATE else "shuffled together"
    return [
        f"Streams: {parts}, {how}; SET+SHIFT: OOD has the same shift as ID. All adapters get the same streams.",
        "Intervals: Student's over streams of one model, or over models' seeds. Ranks: within an adapter, "
        "in the same way. ID accuracy: in the streams.",
        f"Gain: difference of {title_of(board.metric)} to the same scorer without adaptation, paired by stream.",
    ]


def _whole_table(board: Board) -> tuple[list[str], list[list[str]]]:
    groups = [name for name in GROUPS if name in board.sets.values()]
    columns = _leading_columns(board)
    columns.insert(3, ("ID accuracy", lambda row: value_with_interval(row, "id_accuracy")))
    for name in (*groups, *board.sets):
        columns += value_columns(board, name)
    rows = [[cell(row) for _, cell in columns] for row in board.rows]
    return [header for header, _ in columns], rows


def _leading_columns(board: Board) -> list[Column]:
    """Return the columns before those of the groups and sets, in every format for people."""
    return [("model", model_name), ("scorer", scorer_name), ("rank", rank_range), *gain_columns(board)]


def gain_columns(board: Board) -> list[Column]:
    """Return the column of gains over the unadapted model; [] for a board without adapters."""
    name = f"{board.group}_{board.metric}_gain"
    if name not in board.frame or board.frame[name].isna().all():
        return []
    low, high = f"{name}_lo", f"{name}_hi"
    return [("gain", lambda row: difference(row[name], row[low], row[high], digits=1))]


def value_columns(board: Board, name: str) -> list[Column]:
    """Return the columns of a group or a set: the board's metric, and FPR95."""
    metric, fpr = f"{name}_{board.metric}", f"{name}_{board.fpr}"
    columns: list[Column] = [
        (f"{name} {title_of(board.metric)}", lambda row: value_with_interval(row, metric))
    ]
    if board.metric != board.fpr:
        columns.append((f"{name} {title_of(board.fpr)}", lambda row: percent(row[fpr])))
    return columns


def model_name(row: dict[str, Any]) -> str:
    """Name the model of a row, with its adapter and the number of seeds."""
    seeds = f" ({row['seeds']} seeds)" if row["seeds"] > 1 else ""
    adapter = "" if row["adapter"] == SOURCE else f" + {row['adapter']}"
    return f"{row['model']}{adapter}{seeds}"


def scorer_name(row: dict[str, Any]) -> str:
    """Name the scorer of a row, with the scorer whose scores it repeats."""
    alias = row["same_as"]
    return row["scorer"] if is_missing(alias) else f"{row['scorer']} (= {alias})"


def rank_range(row: dict[str, Any]) -> str:
    """Write the range of a row's rank."""
    best, worst = row["rank_best"], row["rank_worst"]
    if is_missing(best) or is_missing(worst):
        return ABSENT
    return f"{best}" if best == worst else f"{best}–{worst}"


def value_with_interval(row: dict[str, Any], column: str) -> str:
    """Write the value of a column in per cent, with its interval if there is one."""
    return with_interval(row[column], row.get(f"{column}_lo"), row.get(f"{column}_hi"))


WRITERS: Mapping[BoardFormat, Callable[..., str]] = {
    BoardFormat.md: as_markdown,
    BoardFormat.csv: as_csv,
    BoardFormat.json: as_json,
    BoardFormat.latex: as_latex,
}
