"""Errors that a user can fix. Each message is one line: the wrong value, the valid values and the fix."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from harness.base.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterable


INSTALLED = "Installed"  # the valid names are those of plugins of this kind
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
MOST_CHOICES = 20  # valid names in a message; of more, the most similar are shown


class HarnessError(Exception):
    """An expected failure. The command line prints it without a traceback and exits with 2."""


class UnknownNameError(HarnessError):
    """A name that is not installed, declared or selected."""


class NotDeclaredError(HarnessError):
    """A plugin read a field that its spec does not declare in `needs`."""


class InputError(HarnessError):
    """A value of the wrong shape, type or range."""


class DatasetError(HarnessError):
    """Data that is missing, empty or unreadable."""


class PluginError(HarnessError):
    """A plugin that cannot be loaded, or a name that two plugins offer."""


class RecordsError(HarnessError):
    """A damaged run folder, or runs that must not be compared."""


class Terminated(BaseException):
    """SIGTERM: the command stops as it does for Ctrl-C."""


def unknown_name(
    kind: str, name: str, valid: Iterable[str], *, valid_label: str = INSTALLED
) -> UnknownNameError:
    """Build the error for a name that is not valid, with the most similar valid name as a suggestion."""
    choices = sorted(valid)
    nearest = difflib.get_close_matches(name, choices, n=1)
    suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
    if len(choices) > MOST_CHOICES:
        close = difflib.get_close_matches(name, choices, n=len(choices), cutoff=0)
        listed = shortened(close)
        if valid_label == INSTALLED:
            listed += f" (ood-harness plugins --kind {kind} lists all)"
    else:
        listed = ", ".join(choices) or "none"
    return UnknownNameError(f"no {kind} named {name!r}.{suggestion} {valid_label}: {listed}")


def shortened(items: Iterable[object], most: int = 5) -> str:
    """List the first items, and count the others: "a, b, c, d, e and 920 more"."""
    found = [str(item) for item in items]
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks, and without addresses in memory, which differ in each run.

    A message that cannot be made becomes one that can; what no file can hold or a terminal would obey is escaped.
    """
    try:
        text = str(error)
    except Exception:  # a plugin's own error may be broken, too
        text = "its message cannot be read"
    return printable(" ".join(ADDRESS.sub("0x…", text).split()))


def reason(error: OSError | ValueError) -> str:
    """Return why the system refused a path: a ValueError is of a path that no system takes, as with a zero byte."""
    return getattr(error, "strerror", None) or one_line(error)


def describe(error: BaseException) -> str:
    """Describe an error in one line, with its type if it is not the harness's own."""
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r})"
    text = one_line(error)
    return text if isinstance(error, HarnessError) else f"{type(error).__name__}: {text}".removesuffix(": ")
