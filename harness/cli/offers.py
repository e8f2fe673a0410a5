"""What there is to say about an offer of a plugin: what it computes, its parameters, needs, cost, citation and use."""

from __future__ import annotations

import functools
import inspect
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.base.docstrings import comments, docstring, summary
from harness.base.errors import HarnessError, PluginError, describe
from harness.base.strangers import RAISED
from harness.base.toml import read_toml
from harness.contract.bases import read_based
from harness.contract.parameters import own_parameters
from harness.contract.registry import names_where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.contract.registry import Offered, Registry

OWN = "ood-harness"  # the distribution whose offers need no origin
DIRECTIONS = {
    "scorer": "higher = more OOD",
    "estimator": "accuracy in 0 to 1, or a score that a fitted curve turns into one",
    "adapter": "lower error = better",
    "objective": "a loss, which training minimises",
}
_SECTIONS = {"scorer": "scorers", "probe": "probes", "adapter": "adapters", "estimator": "estimators"}
_COSTS = {
    "pass": "the pass that all share",
    "passes": "{} more forward passes",
    "gradients": "{} more forward and backward passes",
    "adapts": "{} more forward passes, in which a copy of the model adapts",
}
UNSTABLE = "which of ID and OOD it puts higher turns with its parameters; a suite's * leaves it out"
_STARS = {int(inspect.Parameter.VAR_POSITIONAL): "*", int(inspect.Parameter.VAR_KEYWORD): "**"}
_SHOWN_PARAMETERS = 2  # in the example of its use
_HEAD = frozenset({"schema", "name", "description"})  # keys of a suite that are no content


@dataclass(frozen=True)
class Parameter:
    """A parameter of a builder, as a user reads it."""

    name: str
    type: str
    default: str
    meaning: str


def name_of(offered: Offered) -> str:
    """Return the name of an offer; that of a family ends in a colon."""
    return f"{offered.spec.name}:" if getattr(offered.spec, "argument", "") else str(offered.spec.name)


def is_own(offered: Offered) -> bool:
    """Return whether an offer comes with the harness."""
    return offered.plugin.partition(":")[0] == OWN


def text_of(kind: str, offered: Offered) -> str:
    """Return what an offer says of itself: the docstring of its builder, or the description in its file."""
    if not _is_file(offered):
        return docstring(offered.spec.build)
    return " ".join(str(read_toml(offered.spec.path, kind).get("description", "")).split())


def summary_of(kind: str, offered: Offered) -> str:
    """Return the first sentence of what an offer says of itself, or why it cannot be read."""
    try:
        return summary(text_of(kind, offered))
    except HarnessError as error:
        return str(error)


def fixed_of(offered: Offered) -> str:
    """Write the parameters that the plugin itself has set, if its builder is a partial. This imports the builder."""
    build = getattr(offered.spec, "build", None)
    if not isinstance(build, functools.partial):
        return ""
    set_by_plugin = inspect.signature(build.func).bind_partial(*build.args, **build.keywords).arguments
    return ", ".join(f"{name} = {_written(value)}" for name, value in set_by_plugin.items())


def parameters_of(kind: str, offered: Offered) -> list[Parameter]:
    """List the parameters of an offer. Raises PluginError if its builder cannot be imported."""
    if _is_file(offered):
        return []
    try:
        own, meanings = own_parameters(kind, offered.spec.build), comments(offered.spec.build)
    except RAISED as error:
        name = f"{kind} {offered.spec.name!r} of {offered.plugin}"
        raise PluginError(f"the parameters of the {name} cannot be read: {describe(error)}") from error
    return [
        Parameter(
            _STARS.get(int(each.kind), "") + each.name,
            _type(each),
            _default(each),
            meanings.get(each.name, ""),
        )
        for each in own
    ]


def facts_of(kind: str, offered: Offered, registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield what else there is to know, as pairs of a title and a text."""
    spec = offered.spec
    if argument := getattr(spec, "argument", ""):
        yield "after the colon", argument
    if kind == "suite":
        yield from _content(read_based(spec.path, "suite", registry, name=spec.name))
    if kind == "recipe":
        from harness.models.training.recipe import load_recipe

        recipe = load_recipe(str(spec.path), registry)
        yield from _content(recipe.model_dump(by_alias=True, exclude_defaults=True))
    if fixed := fixed_of(offered):
        yield "fixed", fixed
    if hasattr(spec, "needs"):
        yield "needs", ", ".join(sorted(spec.needs)) or "nothing"
    if kind == "scorer":
        yield from _facts_of_scorer(spec)
    if unit := getattr(spec, "unit", ""):
        yield "unit", unit
    if kind in DIRECTIONS:
        yield "direction", DIRECTIONS[kind]
    if not _is_file(offered):
        yield "citation", spec.cite or "none is stated"
    yield "from", f"{offered.plugin}, version {offered.version}"
    yield from use_of(kind, offered, registry)


def _facts_of_scorer(spec: Any) -> Iterator[tuple[str, str]]:
    yield "cost", cost_of(spec)
    if spec.unstable:
        yield "unstable", UNSTABLE


def cost_of(spec: Any) -> str:
    """Describe the cost of a scorer."""
    return _COSTS[spec.cost].format(spec.passes)


def use_of(kind: str, offered: Offered, registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield how an offer is used: the file or the command, and the line."""
    spec = offered.spec
    params = {} if _is_file(offered) else _shown_defaults(kind, offered)
    if kind in _SECTIONS:
        entry = _inline({"name": spec.name, **params}) if params else json.dumps(spec.name)
        yield "in a suite", f"{_SECTIONS[kind]} = [{entry}]"
    elif kind == "dataset":
        yield "in a suite", _use_of_dataset(spec, params)
    elif kind == "model" and spec.argument:
        yield "in a suite", f"models = [{_inline({spec.name: f'<{spec.argument}>', **params})}]"
    elif kind in ("model", "objective"):
        yield "in a recipe", f"{kind} = {json.dumps(spec.name)}"
        if params:
            yield "", f"{kind}_params = {_inline(params)}"
    elif kind == "suite":
        yield "run it", f"ood-harness run {spec.name}"
    elif kind == "recipe":
        yield "train it", f"ood-harness train {spec.name}"
        for family in names_where(registry, "model", lambda of: of.takes == kind):
            yield "in a suite", f"models = [{_inline({family: spec.name})}]"


def _use_of_dataset(spec: Any, params: Mapping[str, Any]) -> str:
    if spec.shifts:
        severity = {"severity": [params["severity"]]} if "severity" in params else {}
        return f"shift = [{_inline({spec.name: [_first(spec.argument)], **severity})}]"
    dataset = f"{spec.name}:{_first(spec.argument)}" if spec.argument else spec.name
    entry = {"name": "my-set", "dataset": dataset, "group": "far"}
    return f"ood = [{_inline(entry | ({'params': params} if params else {}))}]"


def _first(argument: str) -> str:
    """Return the first of several valid arguments, or a description in brackets."""
    first, several, _ = argument.partition(" | ")
    return first if several else f"<{argument}>"


def _shown_defaults(kind: str, offered: Offered) -> dict[str, Any]:
    """Return the first parameters that TOML can write, with their defaults."""
    own = own_parameters(kind, offered.spec.build)
    written = {each.name: each.default for each in own if _is_plain(each.default)}
    return dict(list(written.items())[:_SHOWN_PARAMETERS])


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _toml(value: Any) -> str:
    """Write a value as TOML does, if it can."""
    return "none" if value is None else json.dumps(value) if _is_plain(value) else repr(value)


def _inline(table: Mapping[str, Any]) -> str:
    """Write an inline table of TOML."""
    pairs = (
        f"{key} = {_inline(value) if isinstance(value, dict) else json.dumps(value)}"
        for key, value in table.items()
    )
    return "{ " + ", ".join(pairs) + " }"


def _is_file(offered: Offered) -> bool:
    return hasattr(offered.spec, "path")


def _type(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is not inspect.Parameter.empty:
        return _toml(parameter.default)
    return "" if int(parameter.kind) in _STARS else "required"


def _content(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the content of a suite or recipe; OOD sets by group."""
    for key, value in table.items():
        if key == "ood":
            groups: dict[str, list[str]] = {}
            for entry in value:
                role = "" if entry.get("role", "test") == "test" else f", {entry['role']}"
                groups.setdefault(f"{entry['group']} OOD{role}", []).append(entry["name"])
            yield from ((group, ", ".join(names)) for group, names in groups.items())
        elif key not in _HEAD and value not in ([], {}):
            yield key, _written(value)


def _written(value: Any) -> str:
    """Write a value of a TOML file for a reader: tables without braces, lists without brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_written(inner)}".rstrip() for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(item, dict) for item in value) else ", ").join(map(_written, value))
    return value if isinstance(value, str) else json.dumps(value)
