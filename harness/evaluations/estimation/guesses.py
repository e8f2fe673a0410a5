"""What estimators say of a new set, as text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.reports.wording import ABSENT, markdown, percent, terminal_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType


HEADERS = ("estimator", "labels seen", "accuracy (%)", "remark")
_MOST_NAMED = 5  # images that cannot be read


@dataclass(frozen=True)
class Guess:
    """What one estimator says, or why it says nothing; accuracies in 0..1."""

    estimator: str
    seen: str  # the labels that it was fitted on
    accuracy: float | None = None
    lo: float | None = None
    hi: float | None = None
    extrapolates: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Guesses:
    """What all estimators say of a set."""

    model: str
    data: str
    images: int
    skipped: Sequence[str]  # images that cannot be read
    rows: Sequence[Guess]


def as_csv(guesses: Guesses) -> str:
    """Write one line an estimator, at full precision."""
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in guesses.rows]).to_csv(index=False, lineterminator="\n")


def as_json(guesses: Guesses) -> str:
    """Write everything at full precision; accuracies as shares."""
    return json.dumps(asdict(guesses), indent=2) + "\n"


def as_markdown(guesses: Guesses) -> str:
    """Write the estimates, with what a reader must know below."""
    return markdown(HEADERS, _rows(guesses), legend(guesses))


def as_terminal(guesses: Guesses) -> RenderableType:
    """Draw the estimates, with what a reader must know below."""
    from rich.console import Group
    from rich.text import Text

    title = f"{guesses.model} on {guesses.data}: {guesses.images} images"
    drawn = terminal_table(title, HEADERS, _rows(guesses), names=(HEADERS[0], HEADERS[1], HEADERS[3]))
    return Group(drawn, Text("\n".join(legend(guesses))))


def legend(guesses: Guesses) -> list[str]:
    """Say how the estimates are read."""
    lines = [
        "Accuracy: estimated, with the 95 % interval that resampling the images leaves; what another kind of shift "
        "would do is not in it.",
        "Labels seen: what an estimator was fitted on. NAME-fitted: a curve reads the score of NAME.",
    ]
    if guesses.skipped:
        named = "; ".join(guesses.skipped[:_MOST_NAMED])
        lines.append(f"{len(guesses.skipped)} images were skipped that cannot be read: {named}")
    return lines


def _rows(guesses: Guesses) -> list[list[str]]:
    return [[row.estimator, row.seen, _accuracy(row), _remark(row)] for row in guesses.rows]


def _accuracy(row: Guess) -> str:
    if row.lo is None or row.accuracy is None:
        return percent(row.accuracy)
    return f"{percent(row.accuracy)} [{percent(row.lo)}, {percent(row.hi)}]"


def _remark(row: Guess) -> str:
    if row.error is not None:
        return row.error
    return "beyond all that its curve has seen: do not rely on it" if row.extrapolates else ABSENT
