"""How a command ends early: what is printed, and the exit code.

1: a plugin ended it. 2: a usage or input error, or a file that the system refuses, in one line. 70: a defect of the
harness, with a traceback. 130 and 143: stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, NoReturn

import typer

from harness.base.cache import FULL
from harness.base.errors import HarnessError, Terminated, describe, one_line
from harness.base.names import printable
from harness.cli import usage

if TYPE_CHECKING:
    from types import FrameType

logger = logging.getLogger("ood_harness")
ENDED, USAGE, DEFECT, INTERRUPTED, TERMINATED = 1, 2, 70, 130, 143


def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM."""
    raise Terminated


def explain(error: BaseException) -> int:
    """Print why a command ended, and return its exit code."""
    if isinstance(error, usage.UsageError) and usage.is_help(error):
        typer.echo(error.format_message(), err=True)
        return USAGE
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return ENDED  # whoever read the output, such as `head`, has enough
    message, code = _reason(error)
    if code == DEFECT:
        traceback.print_exception(error)
    typer.echo(f"ood-harness: {message}", err=True)
    return code


def _reason(error: BaseException) -> tuple[str, int]:
    match error:
        case HarnessError():
            found = one_line(error), USAGE
        case usage.UsageError():
            found = usage.explained(error), USAGE
        case OSError(errno=int(number)):
            fix = "free some, run it again" if number in FULL else "run it again when this is mended"
            # The second name is of a file that was to be replaced by the first, a temporary one.
            place = error.filename2 or error.filename or "a file"
            logger.debug("where it was refused", exc_info=error)  # if a defect of the harness is behind it
            found = printable(f"{place}: {error.strerror}. What is finished is kept: {fix}"), USAGE
        case Terminated():
            found = "terminated", TERMINATED
        case KeyboardInterrupt() | typer.Abort():
            found = "interrupted", INTERRUPTED
        case SystemExit():  # typer raises one for a closed pipe only: code that is not ours did
            found = f"a plugin {describe(error)}. Run it again without this plugin", ENDED
        case _:
            from importlib.metadata import version

            found = f"a defect of ood-harness {version('ood-harness')}: please report the lines above", DEFECT
    return found
