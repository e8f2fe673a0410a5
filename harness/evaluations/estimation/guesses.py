"""Estimates of the accuracy on a new set, as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT, with_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADERS = ("estimator", "labels seen", "accuracy (%)", "remark")
_MOST_NAMED = 5  # images that cannot be read


@dataclass(frozen=True)
class Guess:
    """One estimator's result, or the reason why it has none; accuracies in 0..1."""

    estimator: str
    seen: str  # the labels that it was fitted on
    accuracy: float | None = None
    lo: float | None = None
    hi: float | None = None
    extrapolates: bool = False
    definition: str = ""  # which of its definitions the estimator used, if it has several
    error: str | None = None


@dataclass(frozen=True)
class Guesses:
    """The results of all estimators on a set."""

    model: str
    data: str
    images: int
    skipped: Sequence[str]  # images that cannot be read
    rows: Sequence[Guess]


def guess_text(guesses: Guesses) -> Text:
    """Show the estimates."""
    import pandas as pd

    title = f"{guesses.model} on {guesses.data}: {guesses.images} images"
    sheet = Sheet(title, HEADERS, _rows(guesses), (HEADERS[0], HEADERS[1], HEADERS[3]))
    numbers = pd.DataFrame([asdict(row) for row in guesses.rows])
    return Text([sheet], legend(guesses), numbers, asdict(guesses))


def guess_line(guess: Guess) -> str:
    """Show one estimate in a line."""
    found = with_interval(guess.accuracy, guess.lo, guess.hi)
    remark = _remark(guess)
    return f"{guess.estimator} {found} ({guess.seen})" + (f": {remark}" if remark != ABSENT else "")


def legend(guesses: Guesses) -> list[str]:
    """Explain how to read the estimates."""
    lines = [
        "Accuracy: estimated, with its 95 % interval by resampling the images; the interval does not cover another "
        "kind of shift.",
        "Labels seen: the labels that an estimator was fitted on. NAME-fitted: a curve reads the score of NAME.",
    ]
    if guesses.skipped:
        named = "; ".join(guesses.skipped[:_MOST_NAMED])
        lines.append(f"{len(guesses.skipped)} images cannot be read and were skipped: {named}")
    return lines


def _rows(guesses: Guesses) -> list[list[str]]:
    shown = [with_interval(row.accuracy, row.lo, row.hi) for row in guesses.rows]
    return [
        [row.estimator, row.seen, text, _remark(row)] for row, text in zip(guesses.rows, shown, strict=True)
    ]


def _remark(row: Guess) -> str:
    if row.error is not None:
        return row.error
    beyond = "beyond all points of its curve: do not rely on it" if row.extrapolates else ""
    return "; ".join(filter(None, (row.definition, beyond))) or ABSENT
