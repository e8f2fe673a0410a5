"""Progress bars: updated live in a terminal, every 15 seconds in a log."""

from __future__ import annotations

import sys
from typing import Any

_SECONDS_BETWEEN_LOG_LINES = 15.0


def progress_bar(*, total: int | None, description: str, unit: str, enabled: bool = True) -> Any:
    """Open a tqdm bar on stderr (`update(n)`, `set_postfix`): rate and, if the total is known, time left."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        disable=not enabled,
        leave=False,
        dynamic_ncols=live,
        mininterval=0.1 if live else _SECONDS_BETWEEN_LOG_LINES,
        delay=0.0 if live else _SECONDS_BETWEEN_LOG_LINES,
        maxinterval=10.0 if live else _SECONDS_BETWEEN_LOG_LINES,
    )
