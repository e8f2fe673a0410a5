"""Progress bars: updated live in a terminal, every 15 seconds in a log."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from harness.base.names import printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_SECONDS_BETWEEN_LOG_LINES = 15.0


def progress_bar(
    *, total: int | None, description: str, unit: str, enabled: bool = True, steady: bool = False
) -> Any:
    """Open a tqdm bar on stderr (`update(n)`, `set_postfix`): rate and, if the total is known, time left.

    The rate is that of the last steps, or with `steady` that of all steps.
    """
    from tqdm import tqdm

    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=printable(description),
        unit=unit,
        disable=not enabled,
        leave=False,
        smoothing=0.0 if steady else 0.3,
        dynamic_ncols=live,
        mininterval=0.1 if live else _SECONDS_BETWEEN_LOG_LINES,
        delay=0.0 if live else _SECONDS_BETWEEN_LOG_LINES,
        maxinterval=10.0 if live else _SECONDS_BETWEEN_LOG_LINES,
    )


def print_beside(line: str) -> None:
    """Print a line on stderr, above the bars that are open."""
    from tqdm import tqdm

    tqdm.write(printable(line), file=sys.stderr)


def logged_beside() -> AbstractContextManager[None]:
    """While it is open, log messages are printed above the bars, not into them."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    return logging_redirect_tqdm([logging.getLogger()])
