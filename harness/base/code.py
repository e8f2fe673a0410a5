"""Digests of code: they change if the behaviour of a module changes, not if only comments or layout change."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from harness.base.deferred import unwrapped
from harness.base.digests import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import ModuleType


def file_digest(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def code_digest(path: Path) -> str:
    """Hash the behaviour of a Python file, not its text.

    These do not count: comments, docstrings, layout, annotations of functions and variables, `if TYPE_CHECKING:` and
    the position of an import. These count: the imported names, and the fields of classes, because dataclasses and
    pydantic read them. A file that is not Python, or does not parse, is hashed by its bytes.
    """
    if path.suffix != ".py":
        return file_digest(path)
    return _python_digest(path.read_bytes()) or file_digest(path)


def script_digest(path: Path) -> str:
    """Hash a script and the modules beside it that it imports, also indirectly. Nothing is executed."""
    found, waiting = {path.stem: path}, [path.stem]
    while waiting:
        current = waiting.pop()
        for name in _imported_names(current, found[current]):
            file = _file_in([path.parent], name.split("."))
            if file is not None and name not in found:
                found[name] = file
                waiting.append(name)
    return digest({name: code_digest(file) for name, file in found.items()})


def source_digest(builder: Callable[..., Any] | ModuleType) -> str:
    """Hash the code behind a builder: its module and all modules of the same package that it imports, also indirectly.

    Imports are parsed, not executed, so an edited file counts even before it is loaded. The code of other
    distributions is not hashed: their versions count instead.
    """
    target = unwrapped(builder)
    module = inspect.getmodule(target) or inspect.getmodule(type(target))
    origin = getattr(module, "__file__", None)
    if module is None or origin is None:
        return digest("no source", repr(target))
    files = _package_files(module.__name__, Path(origin))
    # The module's own name is left out: a plugin file may be loaded under another name.
    return digest(
        {name if name != module.__name__ else "": code_digest(path) for name, path in files.items()}
    )


def _package_files(module: str, path: Path) -> dict[str, Path]:
    """Follow the imports of a module within its top-level package; return {module name: file}."""
    found = {module: path}
    waiting = [module]
    top = module.partition(".")[0]
    while waiting:
        current = waiting.pop()
        if found[current].suffix != ".py":
            continue
        for name in _imported_names(current, found[current]):
            if name.partition(".")[0] == top and name not in found:
                file = _module_file(name)
                if file is not None:
                    found[name] = file
                    waiting.append(name)
    return found


def _imported_names(module: str, path: Path) -> set[str]:
    names: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return names
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


@functools.lru_cache(maxsize=1024)
def _python_digest(source: bytes) -> str | None:
    """Hash a module by its syntax tree; None if it does not parse."""
    try:
        tree = ast.parse(source)
        imports, contested = _imports(tree)
        tree = _Bare(contested).visit(tree)
    except (SyntaxError, ValueError, RecursionError):
        return None
    hasher = hashlib.blake2b(repr(sorted(imports)).encode(), digest_size=16)
    for part in _parts(tree):
        hasher.update(f"{part}\n".encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over all nodes except those below `if TYPE_CHECKING:`, in any order."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.orelse if _is_for_type_checkers(node) else ast.iter_child_nodes(node))


def _is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Name | ast.Attribute):
        return False
    return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _imports(tree: ast.AST) -> tuple[set[tuple[str, ...]], set[str]]:
    """Collect all imports, and the contested names: bound to two things, so their imports must keep their position.

    For example `try: import a as x` with `except ImportError: import b as x`.
    """
    imports: set[tuple[str, ...]] = set()
    bound: dict[str, set[tuple[str, ...]]] = {"*": {("all",), ("of it",)}}
    for node in _executed(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = (str(node.level), node.module or "") if isinstance(node, ast.ImportFrom) else ()
            for alias in node.names:
                if (*origin, alias.name) != ("0", "typing", "TYPE_CHECKING"):
                    imports.add((*origin, alias.name, alias.asname or ""))
                    whole = origin or alias.asname  # `import a.b` binds a
                    target = (*origin, alias.name if whole else _bound_name(alias))
                    bound.setdefault(_bound_name(alias), set()).add(target)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.setdefault(node.id, set()).add(("assigned to",))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.setdefault(node.name, set()).add(("defined as",))
    return imports, {name for name, targets in bound.items() if len(targets) > 1}


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


class _Bare(ast.NodeTransformer):
    """Removes all code without effect at run time from a tree, and all imports except those of contested names."""

    def __init__(self, contested: set[str]) -> None:
        self.contested = contested
        self.in_class = False

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr):  # contains no statement
            return node
        outside = self.in_class
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            self.in_class = isinstance(node, ast.ClassDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        result = super().visit(node)
        self.in_class = outside
        if result is node and getattr(node, "body", None) == []:
            node.body = [ast.Pass()]
        return result

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self.in_class:
            return node
        return ast.Assign([node.target], node.value) if node.value is not None else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        # A docstring, or another string that nothing reads.
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return node.orelse if _is_for_type_checkers(node) else node

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> list[ast.AST]:
        fields = dict(ast.iter_fields(node))
        kept = [alias for alias in node.names if _bound_name(alias) in self.contested]
        return [type(node)(**fields | {"names": [alias]}) for alias in kept]

    visit_ImportFrom = visit_Import


def _parts(tree: ast.AST) -> Iterator[str]:
    """Write a tree as text. Unlike with `ast.dump`, all Python versions that parse alike give the same text."""
    waiting: list[object] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, ast.AST):
            yield f"<{type(item).__name__}"
            waiting.append(("end",))
            for name, value in ast.iter_fields(item):
                # Newer Python versions add fields, which are empty for older code. `kind` is the u of u"text".
                if value is not None and value != [] and name != "kind":
                    waiting += [value, (name,)]
        elif isinstance(item, list):
            waiting += [("end",), *item, ("list",)]
        else:
            yield repr(item)


def _module_file(name: str) -> Path | None:
    """Find a module's file in the folders of its package. `find_spec` would import the parent packages."""
    top, *rest = name.split(".")
    spec = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    return _file_in(spec.submodule_search_locations or (), rest)


def _file_in(folders: Iterable[str | Path], parts: Sequence[str]) -> Path | None:
    for folder in folders:
        path = Path(folder, *parts)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
