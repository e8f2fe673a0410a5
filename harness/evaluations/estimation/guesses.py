"""What estimators say of a new set, as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness.reports.text import Sheet, Text
from harness.reports.wording import ABSENT, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def guess_text(guesses: Guesses) -> Text:
    """Show the estimates."""
    import pandas as pd

    title = f"{guesses.model} on {guesses.data}: {guesses.images} images"
    sheet = Sheet(title, HEADERS, _rows(guesses), (HEADERS[0], HEADERS[1], HEADERS[3]))
    return Text(
        [sheet], legend(guesses), pd.DataFrame([asdict(row) for row in guesses.rows]), asdict(guesses)
    )


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
