"""A monotone curve from an estimator's score to accuracy, fitted on labelled sets that are shifted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.cache import write_atomically
from harness.base.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FEWEST_POINTS = 3


@dataclass(frozen=True)
class Point:
    """A labelled set: the kind of shift that made it, the estimator's score there, and the accuracy, in 0..1."""

    kind: str
    score: float
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """Isotonic regression of accuracy on score: rising or falling as the rank correlation, constant beyond its points.

    `key` names the model, preprocessing, estimator, classes and size for which the curve is valid.
    """

    points: tuple[Point, ...]
    key: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, points: Sequence[Point], key: Mapping[str, Any] | None = None) -> Curve:
        """Fit. Raises InputError for too few points, and for scores that are all the same or not finite."""
        scores = np.array([point.score for point in points])
        if not np.isfinite(scores).all():
            raise InputError("a calibration score is not finite, so there is no curve. Correct the estimator")
        if len(np.unique(scores)) < FEWEST_POINTS:
            raise InputError(
                f"{len(points)} calibration sets have {len(np.unique(scores))} different scores; a curve needs "
                f"{FEWEST_POINTS} or more. Give more shifts or severities"
            )
        return cls(tuple(points), dict(key or {}))

    def accuracy(self, score: float) -> float:
        """Return the accuracy at a score."""
        return float(self._fitted.predict([score])[0])

    def interval(self, low: float | None, high: float | None) -> tuple[float | None, float | None]:
        """Return the interval of the accuracy, from the interval of the score."""
        if low is None or high is None:
            return None, None
        ends = sorted((self.accuracy(low), self.accuracy(high)))
        return ends[0], ends[1]

    def extrapolates(self, score: float) -> bool:
        """Return whether a score lies beyond all points of the curve."""
        scores = [point.score for point in self.points]
        return not min(scores) <= score <= max(scores)

    def left_out_error(self) -> float:
        """Compute the mean absolute error at the points, each kind of shift predicted by a curve without it.

        NaN if the points without a kind are too few for a curve.
        """
        errors: list[float] = []
        for kind in dict.fromkeys(point.kind for point in self.points):
            try:
                rest = Curve.of([point for point in self.points if point.kind != kind])
            except InputError:
                return float("nan")
            errors += [abs(rest.accuracy(p.score) - p.accuracy) for p in self.points if p.kind == kind]
        return float(np.mean(errors))

    def save(self, path: Path) -> None:
        """Write the curve and its key as JSON."""
        points = [[point.kind, point.score, point.accuracy] for point in self.points]
        write_atomically(path, json.dumps({"key": self.key, "points": points}, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path, key: Mapping[str, Any]) -> Curve:
        """Read a curve of the given key. Raises InputError for a curve of another key, with the difference."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found, listed = content["key"], content["points"]
            points = [Point(str(kind), float(score), float(accuracy)) for kind, score, accuracy in listed]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{str(path)!r} is no curve ({error}). Give one that `estimate` saved") from None
        wanted = json.loads(json.dumps(key))
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                raise InputError(
                    f"the curve {path.name} was fitted for {name} {found.get(name)!r}, but this is "
                    f"{wanted.get(name)!r}. Fit a new one with --calibration"
                )
        return cls.of(points, found)

    @cached_property
    def _fitted(self) -> Any:
        from scipy.stats import spearmanr
        from sklearn.isotonic import IsotonicRegression

        scores, accuracies = zip(*((point.score, point.accuracy) for point in self.points), strict=True)
        rises = len(set(accuracies)) < 2 or float(spearmanr(scores, accuracies).statistic) >= 0
        fitted = IsotonicRegression(y_min=0, y_max=1, increasing=rises, out_of_bounds="clip")
        return fitted.fit(scores, accuracies)
