"""Writes what is installed as one Markdown page: a table per kind, whose columns are those that have a content."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.cli.offers import UNSTABLE, Parameter, cost_of, fixed_of, parameters_of, summary_of
from harness.reports.wording import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.contract.registry import Offered

HEAD = """# Catalogue

Everything that a suite, a recipe or a command can name. `ood-harness plugins --md > docs/catalogue.md` writes this page
from the code, and `ood-harness plugins NAME` prints the details of one offer. Parameters stand with their defaults; one
without a value is none by default, or required.
"""
_COLUMNS = ("", "what it is", "parameters", "needs", "cost per image", "unit", "citation")


def catalogue(offers: Mapping[str, Sequence[Offered]]) -> str:
    """Write the page of the offers, by kind."""
    return "\n".join([HEAD, *(_section(kind, of) for kind, of in offers.items())])


def _section(kind: str, offers: Sequence[Offered]) -> str:
    rows = [_row(kind, offered) for offered in offers]
    shown = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    headers = [_COLUMNS[place] or kind for place in shown]
    table = markdown_table(headers, [[row[place] for place in shown] for row in rows])
    return f"## {kind.capitalize()}s\n\n{table}\n"


def _row(kind: str, offered: Offered) -> tuple[str, ...]:
    """Return the cells of one offer, as `_COLUMNS` names them."""
    spec = offered.spec
    argument = getattr(spec, "argument", "")
    fixed, unstable = fixed_of(offered), getattr(spec, "unstable", False)
    text = summary_of(kind, offered) + f" ({fixed})" * bool(fixed) + f". Unstable: {UNSTABLE}" * unstable
    return (
        f"`{spec.name}:`{_plain(argument)}" if argument else f"`{spec.name}`",
        _plain(text),
        ", ".join(map(_parameter, parameters_of(kind, offered))),
        ", ".join(sorted(getattr(spec, "needs", ()))),
        _plain(cost_of(spec)) if kind == "scorer" else "",
        getattr(spec, "unit", ""),
        _plain(getattr(spec, "cite", "")),
    )


def _parameter(parameter: Parameter) -> str:
    known = parameter.default not in ("", "none", "required")
    return f"`{parameter.name} = {parameter.default}`" if known else f"`{parameter.name}`"


def _plain(text: str) -> str:
    """Escape what Markdown would read as markup; code between backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if place % 2 else part.replace("<", "&lt;").replace("*", "&#42;").replace("`", "&#96;")
        for place, part in enumerate(parts)
    )
