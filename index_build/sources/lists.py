"""The files of a URL list: found or fetched, and brought to Parquet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.callbacks import TqdmCallback

from index_build.base.tables import parquet
from index_build.base.web import web_options
from index_build.sources.condition import in_condition
from xmore.config.sources import ColumnsConfig, UrlListConfig
from xmore.files.digests import digest_of, digest_text
from xmore.files.errors import ConfigError, DatasetError, first_line
from xmore.files.paths import is_text, naming, remove_folder
from xmore.files.records import read_header, read_records
from xmore.files.sql import identifier, quote, quote_files
from xmore.files.tables import KINDS, kind_of

FLAW = '"xmore flaw"'  # a column: why a row cannot be used, or null
NOT_UTF8 = "not UTF-8"
MAX_COLUMNS = 10_000
BATCH = 100_000  # rows of a text file that are brought to Parquet at a time


@dataclass
class Texts:
    """A list of text files as Parquet, all columns as strings, and its bad lines."""

    files: list[Path] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)  # a row for each bad line: row_key
    first_bad: str = ""  # its file, number, and what is wrong


def list_files(path: str, copies: Path, allow_private: bool = False) -> list[Path]:
    """Return the list's files, sorted by path. Remote files are copied to `copies` first.

    A web server may be anywhere, but not lead to a private address elsewhere, unless allowed.
    A folder is searched to its depth; hidden names, and those with `_` first, are passed over.
    Raises DatasetError.
    """
    local = Path(path) if "://" not in path else _copy(path, copies, allow_private)
    files = [local]
    if local.is_dir():
        files = sorted(_files_in(local))
        if any(kind_of(file.name) != ".txt" for file in files):  # else it is a note beside them
            files = [file for file in files if kind_of(file.name) != ".txt"]
    if not files or not local.exists():
        raise DatasetError(
            f"{path}: no URL list found. Name a file or a folder of {', '.join(KINDS)}."
        )
    for file in files:
        if not file.is_file():
            raise DatasetError(f"{file}: is no file, or leads to none. Remove it from the list.")
        if not is_text(str(file)):
            raise DatasetError(f"{file.parent}: {file.name!r} is not UTF-8. Rename this file.")
    kinds = {kind_of(file.name) for file in files}
    if len(kinds) > 1 or "" in kinds:
        found = ", ".join(sorted(kinds - {""})) or repr(files[0].suffix)
        raise DatasetError(
            f"{path}: the files of a URL list must have one kind of {', '.join(KINDS)}, got "
            f"{found}."
        )
    return files


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the tables in a folder, and in those that links lead to: each folder once."""
    seen = set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if name[0] not in "._"]
        if real not in seen:
            yield from (Path(place, name) for name in names if _is_listed([name]))
        seen.add(real)


def _is_listed(parts: Sequence[str]) -> bool:
    return bool(kind_of(parts[-1])) and not any(part[0] in "._" for part in parts)


def _copy(path: str, copies: Path, allow_private: bool) -> Path:
    """Copy a list with fsspec, folders as folders. Copies at each call: it may have changed."""
    target = copies / f"list-{digest_of(path)[:16]}"
    remove_folder(target)
    target.mkdir(parents=True)
    try:
        options = web_options(path, allow_private)
        fs, root = fsspec.core.url_to_fs(path, **options)  # no pattern: `[`, `*` are themselves
        for name, parts in _remote(fs, root):
            if _is_listed(parts) and ".." not in parts:
                bar = TqdmCallback(tqdm_kwargs={"desc": "memory list", "unit": "B", "leave": False})
                copy = target.joinpath(*parts)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with naming(copy):
                    fs.get_file(name, str(copy), callback=bar)
    except Exception as error:  # each file system raises its own
        shutil.rmtree(target, ignore_errors=True)
        raise DatasetError(f"{path}: cannot be fetched ({first_line(error)}).") from error
    return target


def _remote(fs: Any, root: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return (name, its parts below `root`) of each file of a remote file or folder."""
    last = PurePosixPath(urlsplit(root).path if "://" in root else root).name
    if kind_of(last) or not fs.isdir(root):  # a web server has to send a file to say it is one
        return [(root, (last.lstrip("._") or "list",))]
    below = root.rstrip("/") + "/"
    found = []
    for name in sorted(name for name in fs.find(root) if name.startswith(below)):
        inner = name.removeprefix(below)
        parts = PurePosixPath(urlsplit(inner).path if "://" in name else inner).parts
        found.append((name, parts))
    return found


def check_columns(
    file: str | Path, names: ColumnsConfig, existing: Sequence[str], more: Sequence[str] = ()
) -> None:
    """Raise ConfigError unless the columns of URL and caption, and `more`, exist once."""
    for column in (names.url, names.caption, *more):
        if column is not None and existing.count(column) != 1:
            what = f"two columns `{column}`" if column in existing else f"no column `{column}`"
            raise ConfigError(
                f"{file}: {what}; it has {', '.join(existing) or 'none'}. Set `urls.columns`, as "
                "in `columns: {url: url, caption: caption}`."
            )


def write_texts(files: list[Path], names: ColumnsConfig, folder: Path) -> Texts:
    """Write text files as Parquet under `folder`. Memory: BATCH rows. Raises DatasetError."""
    kind = kind_of(files[0].name)
    header = names.header
    if kind == ".txt":
        header = [names.url]
        if names.caption is not None:
            raise ConfigError(
                f"{files[0]}: has URLs alone. Set `columns: {{caption: null}}` to take images "
                "without captions, or name a list with captions."
            )
    folder.mkdir(parents=True)
    texts = Texts()
    for place, file in enumerate(files):
        columns = read_header(file, kind, header)
        if kind != ".jsonl":
            check_columns(file, names, columns)
        rows: list[dict[str, str | None]] = []
        bad: list[str] = []
        for record in read_records(file, kind, header, _read_by(names)):
            if record.flaw:
                texts.first_bad = texts.first_bad or f"{file}, line {record.line} ({record.flaw})"
                bad.append(digest_text(f"line {record.line} of file {place}"))
            else:
                rows.append(record.values)
            if len(rows) + len(bad) == BATCH:
                _flush(texts, folder, rows, bad, _columns_of(file, rows, columns))
        _flush(texts, folder, rows, bad, _columns_of(file, rows, columns))
    if not texts.files:
        _flush(texts, folder, [], [], _read_by(names))
    return texts


def _columns_of(file: Path, rows: list[dict[str, str | None]], named: list[str]) -> list[str]:
    """Return the columns that a file names, or else those of its rows. Raises DatasetError."""
    columns = named or list(dict.fromkeys(name for row in rows for name in row))
    if len(columns) > MAX_COLUMNS:
        raise DatasetError(
            f"{file}: has {len(columns):,} columns; at most {MAX_COLUMNS:,} are read."
        )
    return columns


def _read_by(names: ColumnsConfig) -> list[str]:
    return [column for column in (names.url, names.caption) if column is not None]


def described(db: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return the type of each column."""
    return {row[0]: row[1] for row in db.execute(f"describe from {table}").fetchall()}


def parquet_list(db: duckdb.DuckDBPyConnection, names: ColumnsConfig, files: list[Path]) -> str:
    """Return SQL for all rows of Parquet files, URL and caption as text; raise ConfigError."""
    groups: dict[tuple[str, ...], list[Path]] = {}  # files by which of the two are bytes
    hive = True  # columns of folders named as `year=2024`, unless the files have them, too
    for file in files:
        existing = described(db, parquet([file]))
        check_columns(file, names, list(existing))
        own = pq.read_schema(file).names  # DuckDB calls the second of two columns otherwise
        check_columns(file, names, own)
        hive = hive and not {name.lower() for name in own} & _of_folders(file)
        texts = _read_by(names)
        for column in texts:
            if existing[column] not in ("VARCHAR", "BLOB", '"NULL"'):
                raise ConfigError(
                    f"{file}: column `{column}` is of type {existing[column]}, not text. Write "
                    "it as strings, or name another column in `urls.columns`."
                )
        in_bytes = tuple(column for column in texts if existing[column] == "BLOB")
        groups.setdefault(in_bytes, []).append(file)
    parts = []
    for in_bytes, group in groups.items():
        change = ", ".join(f"try(decode({identifier(c)})) as {identifier(c)}" for c in in_bytes)
        wrong = [
            f"({identifier(c)} is not null and try(decode({identifier(c)})) is null)"
            for c in in_bytes
        ]
        parts.append(
            f"select * {f'replace ({change})' if change else ''}, "
            f"if({' or '.join(wrong) or 'false'}, {quote(NOT_UTF8)}, null) as {FLAW} "
            f"from {parquet(group, hive=hive)}"
        )
    return " union all by name ".join(parts)


def _of_folders(file: Path) -> set[str]:
    return {part.partition("=")[0].lower() for part in file.parts[:-1] if "=" in part}


def was_guessed(config: UrlListConfig, files: list[Path]) -> bool:
    """Return whether a column that decides about rows had its type guessed by version 2.

    It took the type from the first rows. A score whose type is text or a decimal was right.
    """
    names = config.names
    if not {file.suffix for file in files} <= {".csv", ".tsv", ".jsonl"}:
        return False
    try:
        with duckdb.connect() as db:
            types = described(db, _guessing_reader(files, names))
    except duckdb.Error:
        return False  # it could not read them
    numbers = {names.similarity, *in_condition(config, types)}
    texts = {names.url, names.caption}
    return any(
        (name in texts and kind != "VARCHAR")
        or (name in numbers and kind not in ("VARCHAR", "DOUBLE"))
        for name, kind in types.items()
    )


def _guessing_reader(files: list[Path], names: ColumnsConfig) -> str:
    """Return DuckDB's table function that guesses the types of a list's columns."""
    kind, listed = files[0].suffix, f"[{quote_files(files)}]"
    if kind == ".jsonl":
        return f"read_json({listed}, format = 'newline_delimited', union_by_name = true)"
    columns = ", ".join(f"{quote(name)}: 'VARCHAR'" for name in names.header)
    header = f"header = false, columns = {{{columns}}}" if columns else "header = true"
    marks = "delim = '\t', quote = '', escape = ''" if kind == ".tsv" else "delim = ','"
    return f"read_csv({listed}, {header}, {marks})"


def _flush(
    texts: Texts,
    folder: Path,
    rows: list[dict[str, str | None]],
    bad: list[str],
    columns: list[str],
) -> None:
    """Write rows and bad lines, and forget them."""
    if columns:
        path = folder / f"rows-{len(texts.files):06d}.parquet"
        values = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in columns}
        _write(path, values)
        texts.files.append(path)
    if bad:
        path = folder / f"bad-{len(texts.bad):06d}.parquet"
        _write(path, {"row_key": bad})
        texts.bad.append(path)
    rows.clear()
    bad.clear()


def _write(path: Path, columns: dict[str, Any]) -> None:
    with naming(path):
        pq.write_table(pa.table(columns), path)
