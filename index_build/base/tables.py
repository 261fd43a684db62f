"""Tables that are written to disk atomically, and a DuckDB for data that memory cannot hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.errors import ConfigError
from xmore.files.paths import remove_folder, write_whole
from xmore.files.sql import quote, quote_files

MEMORY_LIMIT = "2GB"  # of DuckDB; sorts and joins that need more spill to disk
ROW_GROUP = 4096  # rows; small, so that a few rows are cheap to look up


@contextmanager
def scratch_db(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB within MEMORY_LIMIT, in its own folder, which is deleted at the end.

    Raises ConfigError for a path with `?`: DuckDB takes the rest for options.
    """
    if "?" in str(folder):
        raise ConfigError(f"{folder}: a memory's path must not contain `?`. Rename its folder.")
    remove_folder(folder)  # of a killed run
    folder.mkdir(parents=True)
    db = duckdb.connect(folder / "duckdb")
    try:
        db.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        db.execute(f"set temp_directory = {quote(str(folder / 'spilled'))}")
        yield db
    finally:
        db.close()
        shutil.rmtree(folder)


def parquet(paths: list[Path], options: str = "", hive: bool = False) -> str:
    """Return DuckDB's table function that reads Parquet files; their columns may differ.

    With `hive`, folders named as `year=2024` are columns, if DuckDB takes them so; else the name of
    a folder above would replace a column of the same name.
    """
    more = f", {options}" if options else ""
    more += "" if hive else ", hive_partitioning = false"
    return f"read_parquet([{quote_files(paths)}], union_by_name = true{more})"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically."""
    write_whole(path, as_parquet(table))


def as_parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue().to_pybytes()


def write_tables(db: duckdb.DuckDBPyConnection, query: str, rows: int, folder: Path) -> int:
    """Write a query's rows as `folder`/00000.parquet ..., `rows` each -> the number of files."""
    reader = db.sql(query).to_arrow_reader(10_000)
    files = 0
    for number, table in enumerate(_sliced(reader.schema, iter(reader), rows)):
        write_table(folder / f"{number:05d}.parquet", table)
        files = number + 1
    return files


def _sliced(schema: pa.Schema, batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield the batches' rows in tables of exactly `rows` rows; the last may have fewer."""
    held = schema.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= rows:
            yield held.slice(0, rows).combine_chunks()
            held = held.slice(rows)
    if held.num_rows:
        yield held.combine_chunks()
