"""The command `ood-harness plugins`: what is installed, and the details of one offer."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import astuple, fields
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.base.errors import UnknownNameError, unknown_name
from harness.cli.offers import Parameter, facts_of, is_own, name_of, parameters_of, summary_of, text_of
from harness.cli.options import Plugins
from harness.reports.terminal import draw, draw_sheet, terminal_width
from harness.reports.text import Sheet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from harness.contract.registry import Offered, Registry

    Offers = Mapping[str, Sequence[Offered]]  # by kind

FAILED = 1
_LONGEST_SUMMARY = 160  # characters
_GAP = 2  # characters between columns


def plugins(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the details of this offer.", show_default=False)
    ] = None,
    *,
    kind: Annotated[
        str | None,
        typer.Option(
            help="scorer, dataset, model, suite, recipe, objective, probe, adapter, estimator or evaluation."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--md", help="Write a Markdown page.")] = False,
    plugin: Plugins = None,
) -> None:
    """List the offers of the installed plugins, and their problems; or show the details of one."""
    from harness.contract.registry import KINDS, Registry

    if kind is not None and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS, valid_label="Valid")
    registry = Registry.load(plugin or [])
    offers = _selected(registry, [kind] if kind else list(KINDS), name)
    if as_json:
        typer.echo(_json(registry, offers))
    elif as_markdown:
        from harness.cli.catalogue import catalogue

        typer.echo(catalogue(offers), nl=False)
    elif name is None:
        _draw_list(offers)
    else:
        _draw_details(registry, offers)
    if registry.problems:
        raise typer.Exit(FAILED)


def offers_of(registry: Registry, kinds: Sequence[str]) -> dict[str, list[Offered]]:
    """Return the offers of the kinds that have any."""
    return {kind: offers for kind in kinds if (offers := registry.offers(kind))}


def _selected(registry: Registry, kinds: Sequence[str], name: str | None) -> Offers:
    """Return all offers of the kinds, or those of one name. Raises UnknownNameError if there are none."""
    offers = offers_of(registry, kinds)
    if name is None:
        return offers
    found = {kind: [each for each in of if _is_named(each, name)] for kind, of in offers.items()}
    if any(found.values()):
        return {kind: of for kind, of in found.items() if of}
    names = sorted({each.spec.name for of in offers.values() for each in of})
    if len(kinds) == 1:
        raise unknown_name(kinds[0], name, names)
    raise UnknownNameError(f"no plugin offers {name!r}.{_near(name, names)} All names: ood-harness plugins")


def _is_named(offered: Offered, name: str) -> bool:
    """Return whether an offer has the name; a family has that of each member."""
    is_family = bool(getattr(offered.spec, "argument", ""))
    return bool(offered.spec.name == (name.partition(":")[0] if is_family else name))


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _json(registry: Registry, offers: Offers) -> str:
    rows = [_row(kind, offered) for kind, of in offers.items() for offered in of]
    problems = [{"plugin": p.plugin, "message": p.message} for p in registry.problems]
    return json.dumps({"plugins": rows, "problems": problems}, indent=2)


def _row(kind: str, offered: Offered) -> dict[str, Any]:
    spec = offered.spec
    argument = getattr(spec, "argument", "")
    return {
        "kind": kind,
        "name": f"{spec.name}:{argument}" if argument else spec.name,
        "plugin": offered.plugin,
        "version": offered.version,
        "needs": sorted(getattr(spec, "needs", ())),
        "cite": getattr(spec, "cite", ""),
    }


def _draw_list(offers: Offers) -> None:
    """Print a table per kind: names and summaries, and the origin of what is not the harness's own."""
    from rich.text import Text

    for kind, of in offers.items():
        draw(Text(f"{kind}s", style="bold"))
        draw(_pairs([(name_of(offered), _line(kind, offered)) for offered in of], indent=_GAP))
        typer.echo()
    draw(Text("Details: ood-harness plugins NAME. A name with a colon takes an argument."))


def _line(kind: str, offered: Offered) -> str:
    text = shorten(summary_of(kind, offered), _LONGEST_SUMMARY, placeholder=" …")
    return text if is_own(offered) else f"{text} ({offered.plugin})".lstrip()


def _draw_details(registry: Registry, offers: Offers) -> None:
    for position, (kind, offered) in enumerate((kind, each) for kind, of in offers.items() for each in of):
        if position:
            typer.echo()
        for part in _details(kind, offered, registry):
            draw(part)


def _details(kind: str, offered: Offered, registry: Registry) -> Iterator[RenderableType]:
    """Yield the name, what it computes, the parameters, and everything else in pairs."""
    from rich.text import Text

    yield Text(f"{kind} {offered.spec.name}", style="bold")
    yield Text(_paragraphs(text_of(kind, offered)) or "It has no description.")
    yield Text()
    if parameters := parameters_of(kind, offered):
        yield draw_sheet(_sheet(parameters), terminal_width())
        yield Text()
    yield _pairs(list(facts_of(kind, offered, registry)))


def _sheet(parameters: Sequence[Parameter]) -> Sheet:
    """Tabulate parameters; a column in which nothing stands is left out."""
    headers = [field.name for field in fields(Parameter)]
    rows = [astuple(each) for each in parameters]
    shown = [place for place in range(len(headers)) if any(row[place] for row in rows)]
    kept = [headers[place] for place in shown]
    return Sheet("Parameters", kept, [[row[place] for place in shown] for row in rows], names=kept)


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph, for the terminal to wrap; those of lists and code stay."""
    joined = (
        part if re.search(r"^[\s*-]", part, flags=re.MULTILINE) else " ".join(part.split())
        for part in text.split("\n\n")
    )
    return "\n\n".join(joined)


def _pairs(pairs: Sequence[tuple[str, str]], *, indent: int = 0) -> RenderableType:
    """Draw two columns that fit the width; long names are folded."""
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    widest = max(cell_len(title) for title, _ in pairs)
    table = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    table.add_column(width=min(widest, terminal_width() // 2), overflow="fold")
    table.add_column(overflow="fold")
    for title, text in pairs:  # not as markup: a text may contain brackets
        table.add_row(Text(title), Text(text))
    return Padding(table, (0, 0, 0, indent))
