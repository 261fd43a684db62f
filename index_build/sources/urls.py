"""Select the wanted rows of a URL list: read, filter, sample, and cut into files."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import fsspec
from fsspec.callbacks import TqdmCallback

from index_build.base.tables import parquet, scratch_db, write_tables
from index_build.sources.language import language_of
from xmore.config.sources import ColumnsConfig, FiltersConfig, UrlListConfig
from xmore.files.digests import cached_digest, digest_of
from xmore.files.errors import ConfigError, DatasetError
from xmore.files.paths import fsync_dir, fsync_file
from xmore.files.sql import allow_only, quote, quote_all, quote_files

KINDS = (".parquet", ".csv", ".tsv", ".jsonl")
OURS = ("row_key", "url", "caption", "memory_key", "width", "height", "source", "image_path")
VERSION = 2  # of the selection's arithmetic


@dataclass(frozen=True)
class Selected:
    """The result of the selection."""

    asked: int  # requested rows, each (url, caption) once
    failures: dict[str, int]  # requested rows that cannot be downloaded, by cause
    filtered: dict[str, int]  # rows that the filters excluded, by filter; not in `asked`
    shards: int


def list_files(path: str, copies: Path) -> list[Path]:
    """Return the list's files, sorted by name. Remote files are copied to `copies` first.

    Raises DatasetError.
    """
    local = Path(path) if "://" not in path else _copy(path, copies)
    files = sorted(p for p in local.iterdir() if p.suffix in KINDS) if local.is_dir() else [local]
    if not files or not all(file.is_file() for file in files):
        raise DatasetError(
            f"{path}: no URL list found. Name a file or a folder of {', '.join(KINDS)}."
        )
    kinds = {file.suffix for file in files}
    if len(kinds) > 1 or not kinds <= set(KINDS):
        raise DatasetError(
            f"{path}: the files of a URL list must have one kind of {', '.join(KINDS)}, got "
            f"{', '.join(sorted(kinds))}."
        )
    return files


def _copy(path: str, copies: Path) -> Path:
    """Copy a list with fsspec. Copies again at each call, as the list may have changed."""
    target = copies / f"list-{digest_of(path)[:16]}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        fs, _, _ = fsspec.get_fs_token_paths(path)
        found = fs.find(path) if fs.isdir(path) else [path]
        for name in sorted(found):
            if Path(name).suffix in KINDS:
                bar = TqdmCallback(tqdm_kwargs={"desc": "memory list", "unit": "B", "leave": False})
                fs.get_file(name, str(target / Path(name).name), callback=bar)
    except Exception as error:  # each file system raises its own
        shutil.rmtree(target, ignore_errors=True)
        raise DatasetError(f"{path}: cannot be fetched ({_first_line(error)}).") from error
    return target


def rows_digest(
    config: UrlListConfig, filters: FiltersConfig, files: list[Path], cache: Path
) -> str:
    """Return a digest of everything that determines the selected rows; files are hashed once."""
    hashes = [cached_digest(file, cache) for file in files]
    how = config.model_dump(exclude={"path", "columns"}) | {"columns": config.names.model_dump()}
    return digest_of([VERSION, hashes, how, filters.model_dump()])


def select_rows(
    config: UrlListConfig, filters: FiltersConfig, files: list[Path], rows: int, folder: Path
) -> Selected:
    """Write the wanted rows as `folder`/00000.parquet ..., `rows` each, unless they exist.

    Columns: row_key (sha256 of URL and caption), url, caption and those to keep. Rows are ordered
    by row_key, so hosts are mixed within a shard, and a sample or limit is part of a larger one.
    Memory: MEMORY_LIMIT and one shard. Raises DatasetError and ConfigError.
    """
    done = folder / "selection.json"
    if done.exists():
        return Selected(**json.loads(done.read_bytes()))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with scratch_db(partial / "scratch") as db:
        _read_list(db, config, filters, files)
        selected = write_selection(db, rows, partial)
    publish_selection(partial, folder, selected)
    return selected


def write_selection(db: duckdb.DuckDBPyConnection, rows: int, folder: Path) -> Selected:
    """Write the table `asked` to `folder`, and return the counts."""
    asked, no_url, no_caption = _counts(db)
    query = "from asked where url <> '' and trim(caption) <> '' order by row_key"
    shards = write_tables(db, query, rows, folder)
    failures = {"no URL": no_url, "empty caption": no_caption}
    filtered = dict(db.execute("from filtered order by all").fetchall())
    return Selected(asked, {cause: n for cause, n in failures.items() if n}, filtered, shards)


def publish_selection(partial: Path, folder: Path, selected: Selected) -> None:
    """Mark `partial` as complete, and rename it to `folder`."""
    (partial / "selection.json").write_text(json.dumps(asdict(selected)))
    fsync_file(partial / "selection.json")
    os.rename(partial, folder)
    fsync_dir(folder.parent)


def _read_list(
    db: duckdb.DuckDBPyConnection, config: UrlListConfig, filters: FiltersConfig, files: list[Path]
) -> None:
    """Create the tables `asked` and `filtered`. Afterwards `db` can read only the list."""
    db.create_function("language_of", language_of, ["VARCHAR"], "VARCHAR")
    db.execute(allow_only(files, "allowed_paths"))
    db.execute("set lock_configuration = true")
    names = config.names
    try:
        db.execute(f"create view list as from {_reader(files, names)}")
        existing = [row[0] for row in db.execute("describe list").fetchall()]
    except duckdb.Error as error:
        raise DatasetError(f"{config.path}: cannot be read ({_first_line(error)}).") from error
    for column in (names.url, names.caption, *_filter_columns(names, filters)):
        if column not in existing:
            raise ConfigError(
                f"{config.path}: no column `{column}`; it has {', '.join(existing)}. Set "
                "`urls.columns`, as in `columns: {url: url, caption: caption}`."
            )
    keep = [column for column in names.keep if column in existing and column not in OURS]
    try:
        db.execute(_listed(config, filters, keep))
        db.execute(
            "create table filtered as select cause, count(*) from listed "
            "where cause is not null group by cause"
        )
        db.execute(_asked(config, keep))
    except duckdb.ParserException as error:
        raise ConfigError(f"`urls.where`: {_first_line(error)}.") from error
    except duckdb.BinderException as error:
        raise ConfigError(
            f"`urls.where`: {_first_line(error)}. The list has {', '.join(existing)}."
        ) from error
    except duckdb.Error as error:
        what = "cannot be read, or `urls.where` fails on it" if config.where else "cannot be read"
        raise DatasetError(f"{config.path}: {what} ({_first_line(error)}).") from error


def _reader(files: list[Path], names: ColumnsConfig) -> str:
    """Return DuckDB's table function that reads the list."""
    kind, listed = files[0].suffix, f"[{quote_files(files)}]"
    if kind == ".parquet":
        return parquet(files)
    if kind == ".jsonl":
        return f"read_json({listed}, format = 'newline_delimited', union_by_name = true)"
    columns = ", ".join(f"{quote(name)}: 'VARCHAR'" for name in names.header)
    header = f"header = false, columns = {{{columns}}}" if columns else "header = true"
    # In TSV a quotation mark is an ordinary character.
    marks = "delim = '\t', quote = '', escape = ''" if kind == ".tsv" else "delim = ','"
    return f"read_csv({listed}, {header}, {marks})"


def _filter_columns(names: ColumnsConfig, filters: FiltersConfig) -> list[str]:
    """Return the columns that the filters read. Raises ConfigError if one has no name."""
    wanted = {
        "width": filters.min_size > 0,
        "height": filters.min_size > 0,
        "similarity": filters.min_similarity is not None,
        "nsfw": bool(filters.nsfw),
    }
    unnamed = [role for role, used in wanted.items() if used and getattr(names, role) is None]
    if unnamed:
        raise ConfigError(
            f"`filters` needs the list's column of `{unnamed[0]}`. Name it in "
            f"`urls.columns`, as in `columns: {{url: url, caption: caption, {unnamed[0]}: ...}}`."
        )
    return [getattr(names, role) for role, used in wanted.items() if used]


def _cause(names: ColumnsConfig, filters: FiltersConfig) -> str:
    """Return SQL for why a row is filtered out, null if it is wanted. Expensive tests come last."""
    tests = []
    if filters.nsfw:
        tests.append((f"{_name(str(names.nsfw))}::varchar in ({quote_all(filters.nsfw)})", "nsfw"))
    if filters.min_similarity is not None:
        column = _name(str(names.similarity))
        tests.append((f"{column}::double >= {filters.min_similarity}", "similarity"))
    if filters.min_size:
        sides = (_name(str(names.width)), _name(str(names.height)))  # least() would ignore a null
        tests.append((" and ".join(f"{s}::double >= {filters.min_size}" for s in sides), "size"))
    if filters.languages:
        tests.append(
            (f"language_of(xmore_caption) in ({quote_all(filters.languages)})", "language")
        )
    cases = "".join(f" when not coalesce({test}, false) then '{name}'" for test, name in tests)
    return f"case{cases} end" if tests else "null::varchar"


def _listed(config: UrlListConfig, filters: FiltersConfig, keep: list[str]) -> str:
    url, caption = _name(config.names.url), _name(config.names.caption)
    kept = "".join(f", {_name(column)}" for column in keep)
    # Hexadecimal strings sort like their numbers, so a bound selects a share of the hashes' range.
    bound = "" if config.sample == 1 else f"where xmore_key < '{int(config.sample * 16**12):012x}'"
    where = f"where ({config.where}\n)" if config.where else ""
    return f"""
        create table listed as
        with rows as (
            select coalesce(trim({url}::varchar), '') as xmore_url,
                   coalesce({caption}::varchar, '') as xmore_caption,
                   sha256(xmore_url || chr(10) || xmore_caption) as xmore_key,
                   *
            from list {where}
        )
        select xmore_key, xmore_url, xmore_caption{kept}, {_cause(config.names, filters)} as cause
        from rows {bound}
    """


def _asked(config: UrlListConfig, keep: list[str]) -> str:
    kept = "".join(f", any_value({_name(column)}) as {_name(column)}" for column in keep)
    limit = f"limit {config.limit}" if config.limit else ""
    return f"""
        create table asked as
        select xmore_key as row_key,
               any_value(xmore_url) as url,
               any_value(xmore_caption) as caption{kept}
        from listed where cause is null
        group by xmore_key
        order by xmore_key {limit}
    """


def _counts(db: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
    return db.execute(
        "select count(*), count(*) filter (url = ''), "
        "count(*) filter (url <> '' and trim(caption) = '') from asked"
    ).fetchall()[0]


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".!")
