"""Select the wanted rows of a URL list: read, filter, sample, and cut into files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import duckdb

from index_build.base.tables import parquet, scratch_db, write_tables
from index_build.sources.condition import in_condition
from index_build.sources.language import language_of
from index_build.sources.lists import (
    FLAW,
    NOT_UTF8,
    Texts,
    check_columns,
    described,
    parquet_list,
    was_guessed,
    write_texts,
)
from index_build.sources.selection import Selected, publish_selection, read_selection
from xmore.config.sources import ColumnsConfig, FiltersConfig, UrlListConfig
from xmore.files.digests import cached_digest, digest_of
from xmore.files.errors import ConfigError, DatasetError, first_line
from xmore.files.paths import remove_folder
from xmore.files.sql import allow_only, identifier, quote, quote_all, time_limit
from xmore.files.tables import BAD_LINE, kind_of

OURS = ("row_key", "url", "caption", "memory_key", "width", "height", "source", "image_path")
# Names that SQL over the rows needs, in any case.
RESERVED = ("row_key", "url", "caption", "cause", "tries", "host", "filename", "file_row_number")
CAUSES = (BAD_LINE, NOT_UTF8, "no URL", "empty caption")
# Our columns beside the list's own.
URL, CAPTION = '"xmore url"', '"xmore caption"'
SECONDS, SECONDS_A_ROW = 600.0, 0.001  # that a list's rows may take: a condition may have no end
VERSION = 2  # of the selection's arithmetic


def rows_digest(
    config: UrlListConfig, filters: FiltersConfig, files: list[Path], cache: Path
) -> str:
    """Return a digest of everything that determines the selected rows; files are hashed once."""
    hashes = [cached_digest(file, cache) for file in files]
    how = config.model_dump(exclude={"path", "columns"}) | {"columns": config.names.model_dump()}
    content = [VERSION, hashes, how, filters.model_dump()]
    if was_guessed(config, files):
        content.append("text")  # rows that were listed under guessed types are listed anew
    return digest_of(content)


def select_rows(
    config: UrlListConfig, filters: FiltersConfig, files: list[Path], rows: int, folder: Path
) -> Selected:
    """Write the wanted rows as `folder`/00000.parquet ..., `rows` each, unless they exist.

    Columns: row_key (sha256 of URL and caption), url, caption and those to keep. Rows are ordered
    by row_key, so hosts are mixed within a shard, and a sample or limit is part of a larger one.
    Memory: MEMORY_LIMIT and one shard. Raises DatasetError and ConfigError.
    """
    done = read_selection(folder)
    if done:
        return done
    partial = folder.with_name(f"{folder.name}.partial")
    remove_folder(partial)
    partial.mkdir(parents=True)
    texts = None
    if kind_of(files[0].name) != ".parquet":
        texts = write_texts(files, config.names, partial / "texts")
    with scratch_db(partial / "scratch") as db:
        _read_list(db, config, filters, files, texts)
        selected = _write_selection(db, config.names, rows, partial)
    if texts:
        selected = replace(selected, first_bad=texts.first_bad)
        shutil.rmtree(partial / "texts")
    publish_selection(partial, folder, selected)
    return selected


def _write_selection(
    db: duckdb.DuckDBPyConnection, names: ColumnsConfig, rows: int, folder: Path
) -> Selected:
    """Write the table `asked` to `folder`, and return the counts."""
    empty = "trim(caption) = ''" if names.caption is not None else "false"
    cause = (
        f"case when flaw is not null then flaw when url = '' then 'no URL' "
        f"when {empty} then 'empty caption' end"
    )
    counts = dict(db.execute(f"select {cause}, count(*) from asked group by 1").fetchall())
    query = f"select * exclude (flaw) from asked where {cause} is null order by row_key"
    shards = write_tables(db, query, rows, folder)
    asked = sum(counts.values())
    counts.pop(None, None)
    failures = {cause: counts[cause] for cause in CAUSES if cause in counts}
    filtered = dict(db.execute("from filtered order by all").fetchall())
    return Selected(asked, failures, filtered, shards)


def _read_list(
    db: duckdb.DuckDBPyConnection,
    config: UrlListConfig,
    filters: FiltersConfig,
    files: list[Path],
    texts: Texts | None,
) -> None:
    """Create the tables `asked` and `filtered`. Afterwards `db` can read only the list."""
    db.create_function("language_of", language_of, ["VARCHAR"], "VARCHAR")
    tables = [*texts.files, *texts.bad] if texts else files
    db.execute(allow_only(tables, "allowed_paths"))
    db.execute("set lock_configuration = true")
    names, existing = config.names, list[str]()
    try:
        if texts:
            found = f"select *, null as {FLAW} from {parquet(texts.files)}"
        else:
            found = parquet_list(db, names, files)
        db.execute(f"create view raw as {found}")
        existing = [name for name in described(db, "raw") if identifier(name) != FLAW]
        check_columns(config.path, names, existing, _filter_columns(names, filters))
        keep = [c for c in names.keep if c in existing and _may_keep(c)]
        bad = parquet(texts.bad) if texts and texts.bad else ""
        numbers = _numbers(db, in_condition(config, existing)) if texts else {}
        _list(db, _listed(config, filters, keep, numbers, bad))
        db.execute(
            "create table filtered as select cause, count(*) from listed "
            "where cause is not null group by cause"
        )
        db.execute(_asked(keep, config.limit))
    except duckdb.ParserException as error:
        raise ConfigError(f"`urls.where`: {first_line(error)}.") from error
    except duckdb.BinderException as error:
        raise ConfigError(
            f"`urls.where`: {first_line(error)}. The list has {', '.join(existing)}. For text of "
            "which not every value is a number, write `try_cast(COLUMN as double)`."
        ) from error
    except duckdb.Error as error:
        what = "cannot be read, or `urls.where` fails on it" if config.where else "cannot be read"
        raise DatasetError(f"{config.path}: {what} ({first_line(error)}).") from error


def _list(db: duckdb.DuckDBPyConnection, listed: str) -> None:
    """Create the table `listed`; a condition must not keep it from ending."""
    ((rows,),) = db.execute("select count(*) from raw").fetchall()
    seconds = SECONDS + SECONDS_A_ROW * rows
    told = (
        f"`urls.where`: was stopped after {seconds:,.0f} seconds for {rows:,} rows. Simplify it, "
        "or filter the list beforehand."
    )
    with time_limit(db, seconds, told) as stopped:
        try:
            db.execute(listed)
        except duckdb.Error as error:
            if stopped.is_set():
                raise ConfigError(told) from error
            raise


def _may_keep(column: str) -> bool:
    return column not in OURS and column.lower() not in RESERVED


def _numbers(db: duckdb.DuckDBPyConnection, columns: list[str]) -> dict[str, str]:
    """Return the type of each text column of which every value is a number or a truth value."""
    tests = {
        "bigint": "regexp_full_match({0}, '[+-]?[0-9]{{1,18}}')",
        "double": "{0} is null or try_cast({0} as double) is not null",
        "boolean": "lower({0}) in ('true', 'false')",
    }
    found = {}
    for column in columns:
        name = f"nullif(trim({identifier(column)}), '')"
        asked = ", ".join(f"bool_and({test.format(name)})" for test in tests.values())
        verdicts = db.execute(f"select {asked} from raw").fetchall()[0]
        kinds = [kind for kind, ok in zip(tests, verdicts, strict=True) if ok]
        if kinds:
            found[column] = kinds[0]
    return found


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
    causes = []
    if filters.nsfw:
        test = f"{identifier(str(names.nsfw))}::varchar in ({quote_all(filters.nsfw)})"
        causes.append((_unless(test), "nsfw"))
    if filters.min_similarity is not None:
        causes += _unless_at_least("similarity", [str(names.similarity)], filters.min_similarity)
    if filters.min_size:
        sides = [str(names.width), str(names.height)]
        causes += _unless_at_least("size", sides, filters.min_size)
    if filters.languages:
        test = f"language_of({CAPTION}) in ({quote_all(filters.languages)})"
        causes.append((_unless(test), "language"))
    cases = "".join(f" when {test} then {quote(cause)}" for test, cause in causes)
    return f"case{cases} end" if causes else "null::varchar"


def _unless(test: str) -> str:
    return f"not coalesce({test}, false)"


def _unless_at_least(what: str, columns: list[str], least: float) -> list[tuple[str, str]]:
    """Return tests of columns that may hold text, with the causes; null is below any number."""
    texts = [f"nullif(trim({identifier(column)}::varchar), '')" for column in columns]
    numbers = [f"try_cast({text} as double)" for text in texts]
    wrong = [
        f"({text} is not null and ({number} is null or isnan({number})))"
        for text, number in zip(texts, numbers, strict=True)
    ]
    below = _unless(" and ".join(f"{number} >= {least}" for number in numbers))
    return [(" or ".join(wrong), f"{what} is not a number"), (below, what)]


def _listed(
    config: UrlListConfig,
    filters: FiltersConfig,
    keep: list[str],
    numbers: dict[str, str],
    bad: str,
) -> str:
    names = config.names
    caption = identifier(names.caption) if names.caption is not None else "null"
    casts = ", ".join(
        f"nullif(trim({identifier(c)}), '')::{kind} as {identifier(c)}"
        for c, kind in numbers.items()
    )
    kept = "".join(
        f", {identifier(c)} as {identifier(f'xmore keep {i}')}" for i, c in enumerate(keep)
    )
    back = "".join(
        f", {identifier(f'xmore keep {i}')} as {identifier(c)}" for i, c in enumerate(keep)
    )
    # Hexadecimal strings sort like their numbers, so a bound selects a share of the hashes' range.
    bound = "" if config.sample == 1 else f"where row_key < '{int(config.sample * 16**12):012x}'"
    where = f"where ({config.where}\n)" if config.where else ""
    also = f"union all by name select row_key, '{BAD_LINE}' as flaw from {bad}" if bad else ""
    return f"""
        create table listed as
        with list as (
            select coalesce(trim({identifier(names.url)}::varchar), '') as {URL},
                   coalesce({caption}::varchar, '') as {CAPTION}{kept},
                   * {f"replace ({casts})" if casts else ""}
            from raw
        ),
        rows as (
            select sha256(concat({URL}, chr(10), {CAPTION}, chr(10) || {FLAW})) as row_key,
                   {URL} as url,
                   {CAPTION} as caption, {FLAW} as flaw{back},
                   {_cause(names, filters)} as cause
            from list {where}
        )
        from (from rows {also}) {bound}
    """


def _asked(keep: list[str], limit: int | None) -> str:
    kept = "".join(f", any_value({identifier(column)}) as {identifier(column)}" for column in keep)
    return f"""
        create table asked as
        select row_key, any_value(url) as url, any_value(caption) as caption{kept},
               any_value(flaw) as flaw
        from listed where cause is null
        group by row_key
        order by row_key {f"limit {limit}" if limit else ""}
    """
