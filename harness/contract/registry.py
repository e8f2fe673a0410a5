"""Finds plugins and collects the specs of each one separately.

pluggy loses plugins if two distributions share an entry-point name, one module has two names, or one hook raises.
So this module walks the entry points itself, registers each as `distribution:name` and calls it alone. Any failure
becomes a Problem that names the plugin; the other plugins still work.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from harness.base.code import source_digest
from harness.base.digests import digest
from harness.base.errors import HarnessError, InputError, PluginError, describe, unknown_name
from harness.base.names import SEPARATORS, fault_of_name
from harness.base.strangers import RAISED, undisturbed
from harness.contract import hooks as hookspecs
from harness.contract import specs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from harness.contract.protocols import Catalogue

BLOCK = "OOD_HARNESS_BLOCK"
OWN = "ood-harness"  # the distribution of the harness and its first-party plugins
KINDS: Mapping[str, tuple[str, type]] = {
    "scorer": ("harness_scorers", specs.ScorerSpec),
    "dataset": ("harness_datasets", specs.DatasetSpec),
    "model": ("harness_models", specs.ModelSpec),
    "suite": ("harness_suites", specs.SuiteSpec),
    "recipe": ("harness_recipes", specs.RecipeSpec),
    "objective": ("harness_objectives", specs.ObjectiveSpec),
    "probe": ("harness_probes", specs.ProbeSpec),
    "adapter": ("harness_adapters", specs.AdapterSpec),
    "estimator": ("harness_estimators", specs.EstimatorSpec),
    "evaluation": ("harness_evaluations", specs.EvaluationSpec),
}

logger = logging.getLogger("ood_harness")


@dataclass(frozen=True)
class Offered:
    """A spec and the plugin that offers it."""

    spec: Any
    plugin: str  # "distribution:entry point", or "file:NAME"
    version: str
    files: tuple[Path, ...] = ()  # all plugins that are files

    @property
    def kind(self) -> str:
        """What it offers: "scorer", "dataset", ..."""
        return next(kind for kind, (_, spec_type) in KINDS.items() if isinstance(self.spec, spec_type))

    @cached_property
    def source(self) -> str:
        """Digest of the code behind the spec's builder."""
        return source_digest(self.spec.build)


@dataclass(frozen=True)
class Problem:
    """A problem of one plugin, in one line with the fix."""

    plugin: str
    message: str

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.message}"


class Registry:
    """All specs of the installed plugins, with their provenance."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._versions: dict[str, str] = {}
        self._files: tuple[Path, ...] = ()
        self._offers: dict[tuple[str, str], list[Offered]] = {}
        self._plugins = pluggy.PluginManager(hookspecs.NAME)
        self._plugins.add_hookspecs(hookspecs)

    @classmethod
    def load(cls, files: Sequence[Path] = (), *, blocked: Iterable[str] | None = None) -> Registry:
        """Load every installed plugin that is not blocked, then the given plugin files."""
        registry = cls()
        refused = _blocked_names() if blocked is None else frozenset(blocked)
        for distribution, entry_point in _entry_points():
            name = f"{distribution.name}:{entry_point.name}"
            if not refused & {name, entry_point.name}:
                registry._load_entry_point(name, distribution.version, entry_point)
        registry._load_files(files)
        return registry

    @classmethod
    def only(cls, plugin: str, files: Sequence[Path]) -> Registry:
        """Load one installed plugin, by its name, and the given plugin files."""
        registry = cls()
        registry._load_files(files)
        for distribution, entry_point in () if plugin in registry._versions else _entry_points():
            if plugin == f"{distribution.name}:{entry_point.name}":
                registry._load_entry_point(plugin, distribution.version, entry_point)
        return registry

    def names(self, kind: str) -> list[str]:
        """List the names of one kind, sorted."""
        return sorted(name for of_kind, name in self._offers if of_kind == kind)

    def get(self, kind: str, name: str) -> Offered:
        """Return the spec of a name; `family:argument` finds the family.

        Raises UnknownNameError if no plugin offers the name, PluginError if two do.
        """
        found = self._offers.get((kind, name)) or self._family(kind, name)
        if not found:
            family = name.partition(":")[0]
            raise unknown_name(kind, name if family in self.names(kind) else family, self.names(kind))
        if len(found) > 1:
            raise PluginError(_conflict(kind, name, found))
        return found[0]

    def path(self, kind: str, name_or_path: str) -> Path:
        """Return the TOML file of a suite or recipe, given by its name in a plugin or as a path."""
        if name_or_path.endswith(".toml"):
            return Path(name_or_path).expanduser()
        try:
            path: Path = self.get(kind, name_or_path).spec.path
        except HarnessError as error:
            raise type(error)(f"{error}. Or give the path of a .toml file") from None
        return path

    def offers(self, kind: str) -> list[Offered]:
        """List every spec of one kind, sorted by name; names that two plugins offer are included."""
        return [offered for name in self.names(kind) for offered in self._offers[kind, name]]

    @property
    def versions(self) -> dict[str, str]:
        """Distribution versions of the loaded plugins, by plugin name."""
        return dict(self._versions)

    def notify(self, hook: str, **arguments: object) -> None:
        """Call a hook of every plugin that has it. A plugin that raises is reported and does not stop the others."""
        for name, _ in self._plugins.list_name_plugin():
            try:
                self._call(name, hook, **arguments)
            except RAISED as error:
                self._report(name, f"{hook} raised {describe(error)}")

    def _family(self, kind: str, name: str) -> list[Offered]:
        family, colon, _ = name.partition(":")
        return [o for o in self._offers.get((kind, family), []) if colon and getattr(o.spec, "argument", "")]

    def _load_entry_point(self, name: str, version: str, entry_point: importlib.metadata.EntryPoint) -> None:
        try:
            with undisturbed():
                module = entry_point.load()
        except RAISED as error:
            self._report(name, f"its import raised {describe(error)}")
        else:
            self._add(name, version, module)

    def _load_files(self, files: Sequence[Path]) -> None:
        given = {file.resolve(): file for file in files}
        self._files = tuple(given)
        for path in given.values():
            name = f"file:{path.name}"
            self._add(f"file:{path}" if name in self._versions else name, "file", _import_file(path))

    def _add(self, name: str, version: str, plugin: ModuleType) -> None:
        known = self._plugins.get_name(plugin)
        if known is not None:
            self._report(name, f"is the same module as {known}, which already offers its specs", block=False)
            return
        self._versions[name] = version
        try:
            self._plugins.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self._plugins.unregister(name=name)
            self._report(name, f"cannot be registered: {describe(error)}")
            return
        self._report_unknown_hooks(name, plugin)
        for kind in KINDS:
            self._collect(kind, name)

    def _report_unknown_hooks(self, name: str, plugin: ModuleType) -> None:
        callers = self._plugins.get_hookcallers(plugin) or []
        valid = [hook for hook in vars(hookspecs) if hook.startswith("harness_")]
        for caller in callers:
            if not caller.has_spec():
                self._report(name, str(unknown_name("hook", caller.name, valid, valid_label="Valid")))

    def _collect(self, kind: str, plugin: str) -> None:
        hook, spec_type = KINDS[kind]
        try:
            for specs in self._call(plugin, hook):
                for spec in specs:  # a generator may raise later: earlier specs are kept
                    if isinstance(spec, spec_type):
                        self._offer(kind, plugin, spec)
                    else:
                        self._report(plugin, f"{hook} returned {spec!r} instead of {spec_type.__name__}")
        except RAISED as error:
            self._report(plugin, f"{hook} raised {describe(error)}")

    def _offer(self, kind: str, plugin: str, spec: Any) -> None:
        if fault := fault_of_name(spec.name, without=SEPARATORS):
            self._report(plugin, f"a {kind} has a name that is none: {fault}")
            return
        offers = self._offers.setdefault((kind, spec.name), [])
        offers.append(Offered(spec, plugin, self._versions[plugin], self._files))
        if len(offers) > 1:
            self._report(plugin, _conflict(kind, spec.name, offers), block=False)

    def _call(self, plugin: str, hook: str, **arguments: object) -> list[Any]:
        others = [
            other for name, other in self._plugins.list_name_plugin() if name != plugin and other is not None
        ]
        results: list[Any] = self._plugins.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        return results

    def _report(self, plugin: str, message: str, *, block: bool = True) -> None:
        fix = f". Fix it, or block it with {BLOCK}={plugin}" if block else ""
        problem = Problem(plugin, message + fix)
        self.problems.append(problem)
        logger.warning("%s", problem)


def names_where(catalogue: Catalogue, kind: str, holds: Callable[[Any], bool]) -> list[str]:
    """List the names of one kind whose spec meets a condition. Names that two plugins offer are left out."""
    found = []
    for name in catalogue.names(kind):
        with contextlib.suppress(PluginError):
            if holds(catalogue.get(kind, name).spec):
                found.append(name)
    return found


def _entry_points() -> list[tuple[importlib.metadata.Distribution, importlib.metadata.EntryPoint]]:
    """List the entry points of all distributions, sorted by name; each distribution counts once."""
    try:
        found = [(point.dist, point) for point in importlib.metadata.entry_points(group=hookspecs.NAME)]
    except (ValueError, KeyError, TypeError, AttributeError):  # the files of some distribution are damaged
        found = list(_entry_points_that_can_be_read())
    named = [(distribution, point) for distribution, point in found if distribution is not None]
    return sorted(named, key=lambda pair: (pair[0].name.lower().replace("_", "-"), pair[1].name))


def _entry_points_that_can_be_read() -> Iterator[
    tuple[importlib.metadata.Distribution, importlib.metadata.EntryPoint]
]:
    """Yield the entry points of one distribution after the other; a damaged one is logged and left out."""
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            name, points = distribution.name, distribution.entry_points.select(group=hookspecs.NAME)
        except Exception as error:
            place = getattr(distribution, "_path", "at an unknown place")
            logger.warning(
                "a distribution is damaged, and its plugins are left out: %s: %s", place, describe(error)
            )
            continue
        if name not in seen:
            seen.add(name)
            yield from ((distribution, point) for point in points)


def _import_file(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"the plugin file {str(path)!r} does not exist or is not a .py file. Give --plugin a Python file"
        )
    # The same name in every process, and another one for another file of the same name.
    module_name = f"ood_harness_file_{path.stem}_{digest(str(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"the plugin file {str(path)!r} cannot be imported. Give --plugin a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look up their module here
    try:
        with undisturbed():
            spec.loader.exec_module(module)
    except RAISED as error:
        raise PluginError(
            f"the plugin file {str(path)!r} raised {describe(error)} when it was imported"
        ) from error
    return module


def _blocked_names() -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(BLOCK, "").split(",") if name.strip())


def _conflict(kind: str, name: str, offers: Sequence[Offered]) -> str:
    plugins = [offered.plugin for offered in offers]
    return (
        f"the {kind} {name!r} is offered by {' and '.join(plugins)}. "
        f"Block one: {BLOCK}={plugins[0]} or {BLOCK}={plugins[-1]}"
    )
