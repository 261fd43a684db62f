"""The source of a method: its module, and the modules of ours on which its numbers depend."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from xmore.files.digests import digest_file, digest_of
from xmore.files.paths import PROJECT_ROOT
from xmore.methods.base import Method, Origin

# They hold no arithmetic; what is set in options is in `Scorer.identity`.
WITHOUT_NUMBERS = ("xmore/files/", "xmore/methods/options.py")


def method_key(method: Method) -> list[str | int]:
    """Return what stands for a method in a digest: its name, and its version or its source.

    One from outside is never taken for another of the same name: its file or package is in it.
    """
    version = method.version
    key = [method.name, digest_of(source_of(method)) if version is None else version]
    return key if method.origin is None else [*key, method.origin.module or method.origin.path.name]


def source_of(method: Method) -> dict[str, str]:
    """Return the sha256 of a method's module and of all modules that it imports, by path.

    Those are ours, and for a method of an installed package that package's. Imports for type checks
    and those of WITHOUT_NUMBERS are not followed. It is read once for each class.
    """
    return _source_of(type(method), method.origin)


@cache
def _source_of(kind: type[Method], origin: Origin | None) -> dict[str, str]:
    found: dict[str, str] = {}
    todo = [Path(inspect.getfile(kind)), *([origin.path] if origin else [])]
    package = package_of(origin) if origin else None
    while todo:
        path = todo.pop()
        name = _told(path, package)
        if name not in found and not name.startswith(WITHOUT_NUMBERS):
            found[name] = digest_file(path)
            todo += _imported(ast.parse(path.read_bytes()), path, package)
    return found


def package_of(origin: Origin) -> Path | None:
    """Return the folder of the package that a method from outside is in; None for a single file."""
    depth = origin.module.count(".") + (origin.path.name == "__init__.py")
    return origin.path.parents[depth - 1] if origin.module and depth else None


def _told(path: Path, package: Path | None) -> str:
    """Return a file's name in a digest, which does not depend on where its folder lies."""
    for root in (PROJECT_ROOT / "xmore", package):
        if root and path.is_relative_to(root):
            return path.relative_to(root.parent).as_posix()
    return path.name


def _imported(node: ast.AST, inside: Path, package: Path | None) -> Iterator[Path]:
    """Yield the files of our modules, and the package's, that some code imports, anywhere in it."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or "", *_joined(node)]
    roots = [PROJECT_ROOT / "xmore", *([package] if package else [])]
    relative = isinstance(node, ast.ImportFrom) and node.level
    for name in names:
        for root in roots:
            base = inside.parents[relative - 1] if relative else root.parent
            path = base.joinpath(*name.split("."))
            files = [path.with_suffix(".py"), *([path / "__init__.py"] if root == package else [])]
            yield from (file for file in files if file.is_relative_to(root) and file.is_file())
    for child in ast.iter_child_nodes(node):
        yield from _imported(child, inside, package)


def _joined(node: ast.ImportFrom) -> list[str]:
    return [".".join(filter(None, (node.module, alias.name))) for alias in node.names]
