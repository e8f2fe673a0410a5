"""Digests of code: they change if what a module does changes, and not if only its text does."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from harness.base.deferred import Deferred
from harness.base.digests import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def file_digest(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def code_digest(path: Path) -> str:
    """Hash what a Python file does, and not how it is written.

    Comments, docstrings, layout, the annotations of functions and variables, `if TYPE_CHECKING:` and the place of an
    import do not count. What is imported does, and so do the fields of classes, which dataclasses and pydantic read.
    A file that is not Python, or does not parse, counts by its bytes.
    """
    if path.suffix != ".py":
        return file_digest(path)
    return _python_digest(path.read_bytes()) or file_digest(path)


def source_digest(builder: Callable[..., Any]) -> str:
    """Hash the code behind a builder: its module and every module of the same package that this one imports.

    The imports are read, not run, so that an edited file counts even before it is loaded. Code of other
    distributions counts by its version instead.
    """
    target = builder
    while isinstance(target, functools.partial | Deferred):
        target = target.target if isinstance(target, Deferred) else target.func
    module = inspect.getmodule(target) or inspect.getmodule(type(target))
    origin = getattr(module, "__file__", None)
    if module is None or origin is None:
        return digest("no source", repr(target))
    files = _package_files(module.__name__, Path(origin))
    # The module's own name is left out: a plugin file may be loaded under another.
    return digest(
        {name if name != module.__name__ else "": code_digest(path) for name, path in files.items()}
    )


def _package_files(module: str, path: Path) -> dict[str, Path]:
    """Follow imports from a module within its top-level package: {module name: file}."""
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
    """Walk over all nodes but those below `if TYPE_CHECKING:`, in no order."""
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
    """Collect all imports, and the names whose imports must keep their place: those bound to two things.

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
    """Takes all from a tree that changes nothing at run time, and the imports but for those of contested names."""

    def __init__(self, contested: set[str]) -> None:
        self.contested = contested
        self.in_class = False

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr):  # holds no statement
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
        # A docstring. A string elsewhere that nothing reads is a comment as well.
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
    """Write a tree as text. Unlike `ast.dump`, the text is the same in all versions of Python that parse alike."""
    waiting: list[object] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, ast.AST):
            yield f"<{type(item).__name__}"
            waiting.append(("end",))
            for name, value in ast.iter_fields(item):
                # Newer versions add fields, which are empty in older code. `kind` is the u of u"text".
                if value is not None and value != [] and name != "kind":
                    waiting += [value, (name,)]
        elif isinstance(item, list):
            waiting += [("end",), *item, ("list",)]
        else:
            yield repr(item)


def _module_file(name: str) -> Path | None:
    """Find a module's file by its package's folders. `find_spec` would import the packages on the way."""
    top, *rest = name.split(".")
    spec = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
