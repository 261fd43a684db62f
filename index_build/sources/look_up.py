"""Look up what a config's sources hold now, and write the wanted rows, one folder per source.

    <memory>/making/wanted-<digest>/00000.parquet ... selection.json

Each row has a caption and a row_key, its identity in the source: sha256 of URL and caption, or of
path, caption and bytes. A row of a local source also has its memory_key and its path.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from index_build.base.metadata import check_metadata
from index_build.base.tables import parquet, scratch_db, write_table, write_tables
from index_build.sources import lists, urls
from index_build.sources.condition import check_condition
from index_build.sources.folder import FolderPairs, read_pairs
from index_build.sources.language import language_of
from index_build.sources.selection import Selected, publish_selection, read_selection
from index_build.sources.tars import OTHER, digest_listings, list_tars, listings
from xmore.config.memory import ReindexConfig
from xmore.config.sources import SourceConfig, TarsConfig
from xmore.files.digests import digest_of, digest_text
from xmore.files.errors import ConfigError
from xmore.files.paths import remove_folder
from xmore.files.tables import BAD_LINE
from xmore.memory.adopt import adopt
from xmore.memory.rows import rows_of_shard
from xmore.memory.snapshot import Snapshot

LOCAL = pa.schema(
    [
        ("row_key", pa.string()),
        ("memory_key", pa.string()),
        ("caption", pa.string()),
        ("image_path", pa.string()),  # under the source's folder; `x.tar/member` in a tar
        ("offset", pa.int64()),  # of an image in its tar, or of a row in its file of embeddings
        ("bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Listed:
    """A source and a digest of its content, which shows whether it has changed."""

    source: SourceConfig
    digest: str
    found: Any  # files of a URL list, FolderPairs, paths of tars, or an adopted Snapshot
    root: str | None  # folder that holds the images or embeddings


@dataclass(frozen=True)
class Wanted:
    """A source's wanted rows, as files."""

    listed: Listed
    files: list[Path]
    asked: int  # requested rows: those in `files`, and `failures`
    failures: Counter[str]
    filtered: Counter[str]
    first_bad: str = ""  # the first line of a list that cannot be read


def look_up(source: SourceConfig, config: ReindexConfig) -> Listed:
    """Look up what a source holds now. Raises DatasetError, ConfigError and SnapshotError."""
    how = [source.filters.model_dump(), config.shard_rows]
    if source.urls:
        check_condition(source.urls.where)
        files = lists.list_files(
            source.urls.path, config.memory / "making", config.download.allow_private
        )
        digest = urls.rows_digest(source.urls, source.filters, files, config.cache)
        return Listed(source, digest_of([digest, config.shard_rows]), files, None)
    if source.images:
        pairs = read_pairs(source.images, config.cache)
        return Listed(source, digest_of([pairs.digest, how]), pairs, str(pairs.folder))
    if source.tars:
        tars = list_tars(source.tars.folder)
        content = listings(tars, source.tars, config.cache, config.download.max_bytes)
        keys = digest_listings(content, source.tars.folder)
        return Listed(source, digest_of([keys, how]), tars, str(source.tars.folder))
    assert source.clip_retrieval  # the config checks that one kind is set
    if source.clip_retrieval.folder.resolve().is_relative_to(config.memory.resolve()):
        raise ConfigError(
            f"{source.clip_retrieval.folder}: is inside the memory {config.memory}. Name another "
            "folder or another `memory`."
        )
    adopted = adopt(source.clip_retrieval.folder, config.cache)
    check_metadata(adopted)
    return Listed(source, digest_of([adopted.digest, how]), adopted, str(adopted.path))


def want(listed: Listed, config: ReindexConfig) -> Wanted:
    """Write a source's wanted rows, unless they exist. Memory: one file of rows, DuckDB's limit."""
    folder = config.memory / "making" / f"wanted-{listed.digest[:16]}"
    source = listed.source
    selected = read_selection(folder)
    if selected is None and source.urls:
        found = listed.found
        selected = urls.select_rows(source.urls, source.filters, found, config.shard_rows, folder)
    elif selected is None:
        selected = _write(_local_rows(listed, config), listed, config.shard_rows, folder)
    files = [folder / f"{number:05d}.parquet" for number in range(selected.shards)]
    failures, filtered = Counter(selected.failures), Counter(selected.filtered)
    return Wanted(listed, files, selected.asked, failures, filtered, selected.first_bad)


def _local_rows(listed: Listed, config: ReindexConfig) -> Iterator[dict[str, Any]]:
    """Yield the rows of a source that needs no download: LOCAL, or `cause` if there is no image."""
    if listed.source.images:
        return _pairs(listed.found)
    if listed.source.tars:
        return _tars(listed.found, listed.source.tars, config)
    return _embedded(listed.found)


def _pairs(pairs: FolderPairs) -> Iterator[dict[str, Any]]:
    yield from ({"cause": BAD_LINE} for _ in pairs.bad)
    for path, caption, sha256 in zip(pairs.paths, pairs.captions, pairs.hashes, strict=True):
        if caption is None:
            yield {"cause": lists.NOT_UTF8}
        elif sha256 is None:
            exists = os.path.exists(pairs.folder / path)  # False, too, where a name is too long
            yield {"cause": "unreadable file" if exists else "no such file"}
        else:
            yield {
                "row_key": digest_text(f"{path}\n{caption}\n{sha256}"),
                "memory_key": sha256,
                "caption": caption,
                "image_path": path,
            }


def _tars(tars: list[Path], source: TarsConfig, config: ReindexConfig) -> Iterator[dict[str, Any]]:
    for path, table in listings(tars, source, config.cache, config.download.max_bytes):
        for row in table.to_pylist():
            if cause := row.pop("cause"):
                yield {"filtered" if cause == OTHER else "cause": cause}
                continue
            place = f"{path.name}/{row.pop('member')}"
            key = digest_text(f"{place}\n{row['caption']}\n{row['memory_key']}")
            yield row | {"row_key": key, "image_path": place}


def _embedded(adopted: Snapshot) -> Iterator[dict[str, Any]]:
    for shard in adopted.shards:
        for position, (key, caption) in enumerate(rows_of_shard(adopted, shard)):
            yield {
                "row_key": key,
                "memory_key": key,  # such a folder has no images to hash
                "caption": caption,
                "image_path": shard.embeddings.name,
                "offset": position,
            }


def _write(
    rows: Iterator[dict[str, Any]], listed: Listed, shard_rows: int, folder: Path
) -> Selected:
    """Write a local source's wanted rows. Memory: `shard_rows` rows, and DuckDB's limit."""
    partial = folder.with_name(f"{folder.name}.partial")
    remove_folder(partial)  # of a killed run
    every = partial / "every"
    every.mkdir(parents=True)
    source = listed.source
    languages = set(source.filters.languages)
    failures: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    held: list[dict[str, Any]] = []
    asked = shards = 0
    for row in rows:
        if "filtered" in row:
            filtered[row["filtered"]] += 1
            continue
        if languages and "cause" not in row and language_of(row["caption"]) not in languages:
            filtered["language"] += 1
            continue
        asked += 1
        if "cause" in row:
            failures[row["cause"]] += 1
            continue
        held.append(row)
        if len(held) == shard_rows:
            shards = _flush(held, every, shards)
    if held:
        shards = _flush(held, every, shards)
    if twice := _count_repeated(every, partial / "scratch"):
        failures["same row twice"] = twice
        shards = _write_distinct(every, partial, shard_rows)
    else:
        for path in every.iterdir():
            path.rename(partial / path.name)
    remove_folder(every)
    first_bad = ""
    if source.images and listed.found.bad:
        first_bad = f"{source.images.captions}, {listed.found.bad[0]}"
    selected = Selected(asked, dict(failures), dict(filtered), shards, first_bad)
    publish_selection(partial, folder, selected)
    return selected


def _count_repeated(folder: Path, scratch: Path) -> int:
    """Return how many rows have the row_key of another. Memory: DuckDB's limit."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return 0
    with scratch_db(scratch) as db:
        keys = f"select count(*) - 1 as more from {parquet(files)} group by row_key"
        return int(db.execute(f"select sum(more) from ({keys})").fetchall()[0][0])


def _write_distinct(every: Path, folder: Path, shard_rows: int) -> int:
    """Write the first row of each row_key, in their order -> the number of files."""
    table = parquet(sorted(every.glob("*.parquet")), "filename = true, file_row_number = true")
    with scratch_db(folder / "scratch") as db:
        query = f"""
            select * exclude (filename, file_row_number) from {table}
            qualify row_number() over (partition by row_key order by filename, file_row_number) = 1
            order by filename, file_row_number
        """
        return write_tables(db, query, shard_rows, folder)


def _flush(held: list[dict[str, Any]], folder: Path, shards: int) -> int:
    write_table(folder / f"{shards:05d}.parquet", pa.Table.from_pylist(held, schema=LOCAL))
    held.clear()
    return shards + 1
