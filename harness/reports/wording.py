"""Writes numbers and tables: missing values, shares in per cent, differences, Markdown, LaTeX, CSV and JSON.

Each format has its own escapes, so that text which comes from data is text in every one of them.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from harness.base.names import FORMULA, printable
from harness.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

ABSENT = "–"
FPR_HEADERS = {
    "fpr95_id": "FPR95 (ID positive): share of OOD accepted when 95 % of ID is accepted",
    "fpr95_ood": "FPR95 (OOD positive): share of ID flagged when 95 % of OOD is flagged",
}


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows by column."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict(orient="records")]


def title_of(metric: str) -> str:
    """Return the title of a metric for headers."""
    return METRICS[metric].header if metric in METRICS else metric


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN or pandas' NA."""
    import pandas as pd

    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def percent(share: Any, digits: int = 1) -> str:
    """Write a share in per cent."""
    return ABSENT if is_missing(share) else f"{100 * share:.{digits}f}"


def with_interval(share: Any, low: Any, high: Any) -> str:
    """Write a share in per cent, with its interval if there is one."""
    return percent(share) if is_missing(low) else f"{percent(share)} [{percent(low)}, {percent(high)}]"


def difference(value: Any, low: Any, high: Any, digits: int = 2) -> str:
    """Write a difference of shares in points, with its sign, and its interval if there is one."""
    if is_missing(value):
        return ABSENT
    signed = f"{100 * value:+.{digits}f}"
    return signed if is_missing(low) else f"{signed} [{100 * low:+.{digits}f}, {100 * high:+.{digits}f}]"


def preprocessing_text(stated: Mapping[str, Any]) -> str:
    """Describe a model's preprocessing, as run.json states it."""
    channels, height, width = stated["input_size"]
    mean, std = (" ".join(f"{value:.3g}" for value in stated[name]) for name in ("mean", "std"))
    colours = "grey" if channels == 1 else "RGB"
    mode = "" if stated["crop_mode"] == "center" else f"{stated['crop_mode']} "
    crop = f"{mode}crop {stated['crop_pct']:g}"
    return f"{height}×{width} {colours}, mean {mean}, std {std}, {stated['interpolation']}, {crop}"


def listed(items: Iterable[object]) -> str:
    """Write items with commas between."""
    return ", ".join(map(str, items))


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table, without a line break at its end."""
    lines = ["| " + " | ".join(map(_markdown_cell, cells)) + " |" for cells in (headers, *rows)]
    lines.insert(1, "|" + "---|" * len(headers))
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """Write text in Markdown so that nothing of it becomes HTML, a link or a picture."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(text))


_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])[(\[:]")


def _markdown_cell(text: str) -> str:
    return markdown_text(text).replace("\\", "\\\\").replace("|", "\\|")


def latex_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], comments: Iterable[str], *, names: int
) -> str:
    """Write a booktabs table below comments; its first columns are names, on the left."""
    head, *body = (" & ".join(map(_latex_escaped, cells)) + r" \\" for cells in (headers, *rows))
    return "\n".join(
        [
            *(f"% {printable(line)}" for line in comments),
            rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(headers) - names)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$",
        **{character: f"\\{character}" for character in "_%&#${}"},
    }
)  # fmt: skip


def _latex_escaped(text: str) -> str:
    return printable(text).translate(_LATEX)


def csv_of(frame: pd.DataFrame) -> str:
    """Write a frame at full precision; a missing value is an empty field, and no text is a formula of a spreadsheet."""
    import pandas as pd

    columns = {
        _csv_cell(name): values
        if pd.api.types.is_numeric_dtype(values)
        else pd.Series([_csv_cell(value) for value in values], values.index, values.dtype)
        for name, values in frame.items()
    }
    return pd.DataFrame(columns, frame.index).to_csv(index=False, lineterminator="\n")


def _csv_cell(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would compute; a number in text stays as it is."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in FORMULA and not _NUMBER.fullmatch(text) else text


_NUMBER = re.compile(r"[+-]\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)


def json_of(content: Mapping[str, Any]) -> str:
    """Write an object at full precision: frames as lists of objects, missing values as null."""
    import pandas as pd

    def plain(value: Any) -> Any:
        if isinstance(value, pd.DataFrame):
            return [{key: plain(cell) for key, cell in row.items()} for row in rows_of(value)]
        return None if is_missing(value) else value

    return json.dumps({key: plain(value) for key, value in content.items()}, indent=2, default=int) + "\n"


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
