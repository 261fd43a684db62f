"""Tables on disk, whole or not at all, and a DuckDB for what memory cannot hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.paths import write_whole
from xmore.files.sql import quote, quote_all

MEMORY_LIMIT = "2GB"  # of DuckDB; what sorting and joining need beyond it goes to disk
ROW_GROUP = 4096  # small, so that a few rows are cheap to look up


@contextmanager
def scratch_db(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB within MEMORY_LIMIT, in a folder of its own that goes when it is closed."""
    shutil.rmtree(folder, ignore_errors=True)  # of a killed run
    folder.mkdir(parents=True)
    db = duckdb.connect(folder / "duckdb")
    try:
        db.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        db.execute(f"set temp_directory = {quote(str(folder / 'spilled'))}")
        yield db
    finally:
        db.close()
        shutil.rmtree(folder)


def parquet(paths: list[Path], options: str = "") -> str:
    """DuckDB's table function that reads some Parquet files, whose columns may differ."""
    more = f", {options}" if options else ""
    return f"read_parquet([{quote_all(paths)}], union_by_name = true{more})"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    write_whole(path, sink.getvalue().to_pybytes())


def write_tables(db: duckdb.DuckDBPyConnection, query: str, rows: int, folder: Path) -> int:
    """Write a query's rows as `folder`/00000.parquet ..., `rows` each -> how many files."""
    reader = db.sql(query).to_arrow_reader(10_000)
    files = 0
    for number, table in enumerate(_sliced(reader.schema, iter(reader), rows)):
        write_table(folder / f"{number:05d}.parquet", table)
        files = number + 1
    return files


def _sliced(schema: pa.Schema, batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The batches' rows again, in tables of exactly `rows` but for the last."""
    held = schema.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= rows:
            yield held.slice(0, rows).combine_chunks()
            held = held.slice(rows)
    if held.num_rows:
        yield held.combine_chunks()
