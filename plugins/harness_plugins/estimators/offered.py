"""Offers the estimators of accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Iterator


@harness.hookimpl
def harness_estimators() -> Iterator[harness.EstimatorSpec]:
    """Offer the estimators of accuracy."""
    yield from ()
