"""The source of a method: its module, and the modules of ours on which its numbers depend."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from xmore.files.digests import digest_file, digest_of
from xmore.files.paths import PROJECT_ROOT
from xmore.methods.base import Method

# They hold no arithmetic; what is set in options is in `Scorer.identity`.
WITHOUT_NUMBERS = ("xmore/files/", "xmore/methods/options.py")


def method_key(method: Method) -> list[str | int]:
    """Return what stands for a method in a digest: its name, and its version or its source."""
    version = method.version
    return [method.name, digest_of(source_of(type(method))) if version is None else version]


@cache
def source_of(kind: type[Method]) -> dict[str, str]:
    """Return the sha256 of a method's module and of all modules of ours that it imports, by path.

    Imports for type checks and those of WITHOUT_NUMBERS are not followed.
    """
    found: dict[str, str] = {}
    todo = [Path(inspect.getfile(kind))]
    while todo:
        path = todo.pop()
        inside = path.is_relative_to(PROJECT_ROOT)
        name = path.relative_to(PROJECT_ROOT).as_posix() if inside else path.name
        if name not in found and not name.startswith(WITHOUT_NUMBERS):
            found[name] = digest_file(path)
            todo += _imported(ast.parse(path.read_bytes()))
    return found


def _imported(node: ast.AST) -> Iterator[Path]:
    """Yield the files of our modules that some code imports, at its top or in a function."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in names:
        path = PROJECT_ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if name.startswith("xmore.") and path.is_file():
            yield path
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)
