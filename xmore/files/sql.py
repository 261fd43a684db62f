"""Texts and paths as SQL literals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def quote_all(texts: Iterable[object]) -> str:
    """Return texts as comma-separated SQL literals: for a list or an `in (...)`."""
    return ", ".join(quote(str(text)) for text in texts)


def quote(text: str) -> str:
    """Return `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_files(paths: Iterable[Path]) -> str:
    """Return paths as comma-separated SQL literals that DuckDB's readers take as they are."""
    return quote_all(map(as_pattern, paths))


def as_pattern(path: Path) -> str:
    """Return the pattern that matches `path` alone: DuckDB's readers take a path as a pattern."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))


def allow_only(paths: Iterable[Path], setting: str) -> str:
    """Return SQL after which DuckDB reads nothing but `paths`.

    `setting` is `allowed_paths` (of files) or `allowed_directories`. DuckDB compares a reader's
    pattern with them, and then what it finds, so both are allowed.
    """
    both = [form for path in paths for form in (str(path), as_pattern(path))]
    return f"set {setting} = [{quote_all(both)}]; set enable_external_access = false"


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier: of a column, say."""
    return '"' + name.replace('"', '""') + '"'
