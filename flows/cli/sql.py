"""`xmore sql`: SQL queries on a run's views, from the command line, standard input or a prompt."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from flows.cli.terminal.console import record, say, show_rows, wants_json
from xmore.files.errors import QueryError, what_to_do
from xmore.files.sql import complaint, only_reads, time_limit
from xmore.files.text import visible

Format = Literal["table", "csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("csv", "json", "parquet")  # of a file
SHOWN = 1000  # rows of a table that is printed
SECONDS = 600.0  # a query may take
PROMPT, MORE = "xmore> ", "   ... "


def run_query(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    form: Format | None,
    output: Path | None,
    seconds: float = SECONDS,
) -> None:
    """Run `query` and print its rows, or write them to `output`. Raises QueryError.

    Without `form`, a file has the format that its ending names, and the terminal gets a table.
    It is stopped after `seconds`: a recursive query may have no end. Memory: one batch of rows for
    CSV and Parquet; the result for tables and JSON.
    """
    form = form or _form_of(output)
    if form == "parquet" and output is None:
        raise QueryError("`--format parquet` needs a file: add `--output FILE`.")
    if form == "table" and output:
        raise QueryError(f"{output}: a table is only printed. Use --format csv, json or parquet.")
    if wants_json() and (output or form != "table"):
        raise QueryError("--json prints the rows: omit --output and --format.")
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise QueryError(f"--timeout must be above 0 and finite, got {seconds:g}.")
    with _limited(connection, seconds, output):
        relation = only_reads(connection, query)
        if relation is None:
            return
        if form == "table":
            _show(relation)
            return
        with _sink(output) as sink:
            _write(relation, form, sink)


@contextlib.contextmanager
def _limited(
    connection: duckdb.DuckDBPyConnection, seconds: float, output: Path | None
) -> Iterator[None]:
    """Stop queries after `seconds`, and raise what DuckDB says as QueryError."""
    told = f"the query was stopped after {seconds:g} seconds. Simplify it, or raise --timeout."
    leftovers = [_partial(output)] if output else []
    with time_limit(connection, seconds, told, *leftovers) as stopped:
        try:
            yield
        except (duckdb.Error, _ReadError) as error:
            raise QueryError(
                told if stopped.is_set() else complaint(error, what_to_do(str(error)))
            ) from error


class _ReadError(Exception):
    """What DuckDB says while rows are read; pyarrow makes an OSError of it, as of a full disk."""


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            raise _ReadError(str(error)) from error
        yield batch


def read_query() -> str:
    """Return the query on standard input. Raises QueryError."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise QueryError("the query on standard input is not UTF-8. Convert it.") from error


def prompt(connection: duckdb.DuckDBPyConnection, run: str) -> None:
    """Read queries and print their rows until the end of input; a semicolon ends a query."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its history
    views = [
        name
        for (name,) in connection.execute(
            "select view_name from duckdb_views() where not internal order by 1"
        ).fetchall()
    ]
    print(f"Run {run}. Views: {', '.join(views)}.\nEnd a query with `;`, the prompt with Ctrl-D.")
    lines: list[str] = []
    while True:
        try:
            lines.append(input(MORE if lines else PROMPT))
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            lines = []
            continue
        text = "\n".join(lines).strip()
        if text.rstrip(";").lower() in ("exit", "quit", ".quit", ".exit"):
            return
        if text.rstrip(";").lower() in ("help", ".help", ".tables"):
            text = "select view_name from duckdb_views() where not internal order by 1;"
        if text.endswith(";") or not text:
            lines = []
            try:
                run_query(connection, text, "table", None)
            except QueryError as error:
                print(f"error: {error}", file=sys.stderr)


def _form_of(output: Path | None) -> Format:
    """Return the format that a file's ending names. Raises QueryError for any other ending."""
    if output is None:
        return "table"
    for form in FORMATS:
        if output.suffix.lower() == f".{form}":
            return form
    raise QueryError(
        f"{output}: its ending names no format. Use .csv, .json or .parquet, or set --format."
    )


def _show(relation: duckdb.DuckDBPyRelation) -> None:
    """Print rows, as JSON if `--json` is set; a terminal gets at most SHOWN."""
    names = relation.columns
    if wants_json():
        record("rows", (dict(zip(names, row, strict=True)) for row in relation.fetchall()))
        return
    rows = relation.limit(SHOWN + 1).fetchall()
    show_rows(names, rows[:SHOWN])
    if len(rows) > SHOWN:
        say(f"... and more than these {SHOWN:,} rows. `--output FILE.csv` writes all.")


class _Terminal(io.RawIOBase):
    """Standard output for UTF-8 rows; printable if it is a terminal, as they are if not."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        """Return that rows can be written to it."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes."""
        if sys.stdout.isatty():
            print(visible(self.decoder.decode(bytes(data)), but="\n"), end="")
        else:
            sys.stdout.buffer.write(data)
        return len(data)


def _write(relation: duckdb.DuckDBPyRelation, form: Format, sink: pa.NativeFile) -> None:
    if form == "json":
        rows = relation.to_arrow_table().to_pylist()
        sink.write(json.dumps(rows, indent=1, default=str, ensure_ascii=False).encode() + b"\n")
    else:
        reader = relation.to_arrow_reader(10_000)
        kind = pyarrow.csv.CSVWriter if form == "csv" else pq.ParquetWriter
        schema = _flat(reader.schema) if form == "csv" else reader.schema
        with kind(sink, schema) as writer:
            for batch in _batches(reader):
                table = pa.Table.from_batches([batch])
                writer.write_table(_as_text(table, schema) if form == "csv" else table)


def _flat(schema: pa.Schema) -> pa.Schema:
    """Return the schema with nested columns as text: CSV has no lists, they become JSON."""
    return pa.schema(
        [(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in schema]
    )


def _as_text(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.array([None if v is None else json.dumps(v, default=str) for v in column.to_pylist()])
        if pa.types.is_nested(column.type)
        else column
        for column in table.columns
    ]
    return pa.table(columns, schema=schema)


@contextlib.contextmanager
def _sink(output: Path | None) -> Iterator[pa.NativeFile]:
    if output is None:
        yield pa.PythonFile(_Terminal(), mode="w")
        return
    partial = _partial(output)
    try:
        with partial.open("wb") as stream:
            yield pa.PythonFile(stream, mode="w")
        partial.replace(output)
    except OSError as error:
        raise QueryError(f"{output}: cannot be written ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _partial(output: Path) -> Path:
    if output.is_dir():
        raise QueryError(f"{output}: is a directory. Name a file.")
    return output.with_name(f".{output.name}.tmp")
