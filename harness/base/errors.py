"""The failures that a reader can mend: each is one line that names the value, the valid ones and the fix."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HarnessError(Exception):
    """An expected failure. The command line prints it without a traceback and exits with 2."""


class UnknownNameError(HarnessError):
    """A name that nothing installed, declared or selected bears."""


class NotDeclaredError(HarnessError):
    """A plugin touched a field that it did not declare among its needs."""


class InputError(HarnessError):
    """A value of the wrong shape, type or range."""


class DatasetError(HarnessError):
    """Data that is missing, empty or unreadable."""


class PluginError(HarnessError):
    """A plugin that could not be loaded, or two that claim one name."""


class RecordsError(HarnessError):
    """A run's folder that is damaged, or runs that must not be compared."""


def unknown_name(
    kind: str, name: str, valid: Iterable[str], *, valid_label: str = "Installed"
) -> UnknownNameError:
    """Build the error for a name that is not among the valid ones, with the nearest as a suggestion."""
    choices = sorted(valid)
    nearest = difflib.get_close_matches(name, choices, n=1)
    suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UnknownNameError(
        f"no {kind} named {name!r}.{suggestion} {valid_label}: {', '.join(choices) or 'none'}"
    )
