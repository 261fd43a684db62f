"""Columns of tables that others write: Parquet, and text files (records.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.errors import DatasetError, first_line
from xmore.files.records import check_names, read_records

KINDS = (".parquet", ".csv", ".tsv", ".jsonl", ".txt")
BAD_LINE = "bad line in the list"  # the failure cause


class Columns(NamedTuple):
    """Columns of a table, and its lines that could not be read."""

    table: pa.Table
    bad: list[str]  # each with its number and what is wrong


def kind_of(name: str) -> str:
    """Return the kind of a table by its name, one of KINDS; "" if it is none of them."""
    path = PurePosixPath(name.lower())
    if path.suffix == ".gz":
        inner = PurePosixPath(path.stem).suffix
        return inner if inner in KINDS[1:] else ""
    return path.suffix if path.suffix in KINDS else ""


def holds_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds text, or bytes that may be UTF-8."""
    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    checks = ("string", "large_string", "binary", "large_binary", "null")
    return any(getattr(pa.types, f"is_{check}")(kind) for check in checks)


def as_text(
    column: pa.ChunkedArray, where: str, invalid: Literal["replace", "null"] = "replace"
) -> pa.ChunkedArray:
    """Return a column of text or of UTF-8 bytes as strings; nulls stay.

    Invalid UTF-8 is replaced by U+FFFD, or its value is null. Raises DatasetError, which begins
    with `where`, for any other type.
    """
    if not holds_text(column.type):
        raise DatasetError(f"{where} is of type {column.type}, not text. Write it as strings.")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    try:
        column.validate(full=True)
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
        raw = column.cast(pa.large_binary() if large else pa.binary()).to_pylist()
        decode = _replaced if invalid == "replace" else _or_null
        return pa.chunked_array([pa.array([decode(value) for value in raw], pa.string())])


def read_columns(path: Path, names: Sequence[str], otherwise: str) -> Columns:
    """Read columns of a table into memory: those of Parquet as they are, all others as text.

    A file whose name tells no kind of table is read as `otherwise`. Raises DatasetError.
    """
    kind = kind_of(path.name)
    if kind in ("", ".txt"):
        kind = otherwise
    if not path.is_file():
        raise DatasetError(f"{path}: no such table.")
    if kind == ".parquet":
        try:
            table = pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path}: not readable Parquet ({first_line(error)}).") from error
        check_names(path, names, table.column_names)
        return Columns(table.select(names), [])
    values: dict[str, list[str | None]] = {name: [] for name in names}
    bad, existing = [], dict[str, None]()
    for record in read_records(path, kind, needed=names):
        if record.flaw:
            bad.append(f"line {record.line}: {record.flaw}")
            continue
        existing |= dict.fromkeys(record.values)
        for name in names:
            values[name].append(record.values.get(name))
    if existing:  # rows of JSON name their own
        check_names(path, names, list(existing))
    return Columns(pa.table({n: pa.array(v, pa.string()) for n, v in values.items()}), bad)


def _replaced(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _or_null(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
