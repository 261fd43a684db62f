"""Which rows of a URL list become the memory: read, filtered, sampled and cut into shards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.config import UrlListConfig
from xmore.digest import cached_digest, digest_of
from xmore.errors import ConfigError, DatasetError
from xmore.paths import fsync_dir, fsync_file
from xmore.views import quote

READERS = {
    ".parquet": "read_parquet({files}, union_by_name = true)",
    ".csv": "read_csv({files}, union_by_name = true, header = true)",
    ".jsonl": "read_json({files}, format = 'newline_delimited', union_by_name = true)",
}
OURS = ("row_key", "url", "caption", "memory_key", "width", "height")
VERSION = 1  # of the selection's arithmetic
MEMORY_LIMIT = "2GB"  # of DuckDB; what sorting needs beyond it goes to disk


@dataclass(frozen=True)
class Selected:
    """What the selection came to."""

    asked: int  # rows that the config asks for, each (url, caption) once
    failures: dict[str, int]  # rows among them that are not worth a download, by cause
    shards: int


def list_files(path: Path) -> list[Path]:
    """The list's files, by name. Raises DatasetError."""
    files = sorted(p for p in path.iterdir() if p.suffix in READERS) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise DatasetError(
            f"{path}: no URL list there; it takes a file or a folder of {', '.join(READERS)}."
        )
    kinds = {file.suffix for file in files}
    if len(kinds) > 1 or not kinds <= set(READERS):
        raise DatasetError(
            f"{path}: a URL list is of one kind, {', '.join(READERS)}; got "
            f"{', '.join(sorted(kinds))}."
        )
    return files


def rows_digest(config: UrlListConfig, files: list[Path], cache: Path) -> str:
    """Digest of all that decides which rows are selected; each file's bytes are hashed once."""
    hashes = [cached_digest(file, cache) for file in files]
    how = config.model_dump(exclude={"path", "columns"}) | {"columns": config.names.model_dump()}
    return digest_of([VERSION, hashes, how])


def select_rows(config: UrlListConfig, shard_rows: int, folder: Path) -> Selected:
    """Write the selected rows as `folder`/00000.parquet ..., `shard_rows` each; once.

    Columns: row_key (sha256 of URL and caption), url, caption and those to keep, ordered by
    row_key: so hosts are mixed within a shard, and a sample or limit is part of a larger one.
    Memory: MEMORY_LIMIT and one shard. Raises DatasetError and ConfigError.
    """
    done = folder / "selection.json"
    if done.exists():
        return Selected(**json.loads(done.read_bytes()))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _connect(config, partial) as db:
        asked, no_url, no_caption = _counts(db)
        schema, batches = _rows(db)
        shards = 0
        for number, table in enumerate(_sliced(schema, batches, shard_rows)):
            pq.write_table(table, partial / f"{number:05d}.parquet", compression="zstd")
            fsync_file(partial / f"{number:05d}.parquet")
            shards = number + 1
    (partial / "duckdb").unlink()
    shutil.rmtree(partial / "spilled", ignore_errors=True)
    failures = {"no URL": no_url, "empty caption": no_caption}
    selected = Selected(asked, {cause: n for cause, n in failures.items() if n}, shards)
    (partial / "selection.json").write_text(json.dumps(asdict(selected)))
    fsync_file(partial / "selection.json")
    os.rename(partial, folder)
    fsync_dir(folder.parent)
    return selected


def _connect(config: UrlListConfig, scratch: Path) -> duckdb.DuckDBPyConnection:
    """A connection with the table `asked`, which may read nothing but the list."""
    files = list_files(config.path)
    db = duckdb.connect(scratch / "duckdb")
    allowed = [str(file) for file in files]
    db.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
    db.execute(f"set temp_directory = {quote(str(scratch / 'spilled'))}")
    db.execute(f"set allowed_paths = {_texts(allowed)}")
    db.execute("set enable_external_access = false")
    db.execute("set lock_configuration = true")
    try:
        reader = READERS[files[0].suffix].format(files=_texts(allowed))
        db.execute(f"create view list as from {reader}")
        there = [row[0] for row in db.execute("describe list").fetchall()]
    except duckdb.Error as error:
        raise DatasetError(f"{config.path}: cannot be read ({_first_line(error)}).") from error
    names = config.names
    for column in (names.url, names.caption):
        if column not in there:
            raise ConfigError(
                f"{config.path}: no column `{column}`; it has {', '.join(there)}. Set "
                "`urls.columns`, as in `columns: {url: url, caption: caption}`."
            )
    keep = [column for column in names.keep if column in there and column not in OURS]
    try:
        db.execute(_query(config, keep))
    except duckdb.ParserException as error:
        raise ConfigError(f"`urls.where`: {_first_line(error)}.") from error
    except duckdb.BinderException as error:
        raise ConfigError(
            f"`urls.where`: {_first_line(error)}. The list has {', '.join(there)}."
        ) from error
    except duckdb.Error as error:
        what = "cannot be read, or `urls.where` fails on it" if config.where else "cannot be read"
        raise DatasetError(f"{config.path}: {what} ({_first_line(error)}).") from error
    return db


def _query(config: UrlListConfig, keep: list[str]) -> str:
    url, caption = _name(config.names.url), _name(config.names.caption)
    kept = "".join(f", any_value({_name(column)}) as {_name(column)}" for column in keep)
    # Hexadecimal digits compare as the numbers they are: a share of the hashes' range.
    bound = "" if config.sample == 1 else f"where xmore_key < '{int(config.sample * 16**12):012x}'"
    where = f"where ({config.where}\n)" if config.where else ""
    limit = f"limit {config.limit}" if config.limit else ""
    return f"""
        create table asked as
        with rows as (
            select coalesce(trim({url}::varchar), '') as xmore_url,
                   coalesce({caption}::varchar, '') as xmore_caption,
                   sha256(xmore_url || chr(10) || xmore_caption) as xmore_key,
                   *
            from list {where}
        )
        select xmore_key as row_key,
               any_value(xmore_url) as url,
               any_value(xmore_caption) as caption{kept}
        from rows {bound}
        group by xmore_key
        order by xmore_key {limit}
    """


def _counts(db: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    return db.execute(
        "select count(*), count(*) filter (url = ''), "
        "count(*) filter (url <> '' and trim(caption) = '') from asked"
    ).fetchall()[0]


def _rows(db: duckdb.DuckDBPyConnection) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    reader = db.sql(
        "from asked where url <> '' and trim(caption) <> '' order by row_key"
    ).to_arrow_reader(10_000)
    return reader.schema, iter(reader)


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


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _texts(values: list[str]) -> str:
    return "[" + ", ".join(map(quote, values)) + "]"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".!")
