"""Texts and paths as SQL literals, and an end for each query."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xmore.files.errors import QueryError, first_line

if TYPE_CHECKING:
    import duckdb

# DuckDB's type of statements that only read; `pragma import_database` runs a folder's statements.
ALLOWED = "SELECT"
EXPLAIN = re.compile(r"\s*(explain\s+(?:analyze\s+)?)", re.IGNORECASE)
GRACE = 10.0  # seconds for a query to hear that it is to end


def complaint(error: Exception, otherwise: str = "") -> str:
    """Return DuckDB's error in one line, with the names that it proposes, or else `otherwise`."""
    hints = (
        line.strip()
        for line in str(error).splitlines()
        if "Did you mean" in line or "Candidate" in line
    )
    return f"{first_line(error)}. {next(hints, otherwise)}".strip()


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


def only_reads(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyRelation | None:
    """Return the query as a relation, None if it is empty.

    Raises QueryError for several statements, and for those that could write.
    """
    statements = connection.extract_statements(query)
    if len(statements) > 1:
        raise QueryError(f"run one query at a time, got {len(statements)}.")
    if not statements:
        return None
    kind, text = statements[0].type.name, statements[0].query
    explained = EXPLAIN.match(text) if kind == "EXPLAIN" else None
    if explained:  # `explain analyze` runs what it explains
        (inner,) = connection.extract_statements(text[explained.end() :])
        kind, text = inner.type.name, explained[1] + inner.query
    if kind != ALLOWED:
        raise QueryError(f"a run is read-only, got {kind}. Use SELECT, DESCRIBE or EXPLAIN.")
    return connection.sql(text)


@contextmanager
def time_limit(
    connection: duckdb.DuckDBPyConnection, seconds: float, told: str, *leftovers: Path
) -> Iterator[threading.Event]:
    """Stop queries after `seconds`: they raise duckdb.Error, and the event is set.

    DuckDB hears no interrupt within one function, such as `levenshtein` of long texts. Such a query
    ends with the whole process: `leftovers` are deleted, `told` is printed, the exit code is 2.
    """
    ended, stopped = threading.Event(), threading.Event()

    def stop() -> None:
        wait = seconds
        for _ in range(1 + int(GRACE / 0.1)):
            if ended.wait(wait):
                return
            stopped.set()
            connection.interrupt()  # again and again: between two steps one is lost
            wait = 0.1
        for path in leftovers:
            path.unlink(missing_ok=True)
        os.write(2, f"error: {told}\n".encode())
        os._exit(2)

    watch = threading.Thread(target=stop, daemon=True)
    watch.start()
    try:
        yield stopped
    finally:
        ended.set()
        watch.join()


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier: of a column, say."""
    return '"' + name.replace('"', '""') + '"'
