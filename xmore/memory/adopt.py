"""A folder made by clip-retrieval, read in place as a snapshot; nothing in it is changed.

It has no manifest, names no model, and has no hashes of its images. Therefore its digest is that of
all its bytes (hashed once, cached while sizes and times stay the same), its model is not checked,
and a row's memory_key is the sha256 of its URL and caption.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import FactCache, digest_file, digest_of
from xmore.files.errors import SnapshotError, SnapshotGone
from xmore.files.progress import track
from xmore.files.tables import holds_text
from xmore.memory.locks import in_use
from xmore.memory.rows import embedding_blocks
from xmore.memory.snapshot import (
    Columns,
    MemoryShard,
    Snapshot,
    check_pairs,
    numbered,
    open_array,
    open_snapshot,
    read_shards,
    resolve_current,
)

CAPTION_COLUMNS = ("caption", "TEXT", "text")
PLACE_COLUMNS = ("url", "URL", "image_path", "key")
PREFIX = "adopted-"
READERS = min(4, os.cpu_count() or 1)  # files that are hashed, and checked, at once


def adopt(folder: Path, cache: Path) -> Snapshot:
    """Open `folder` (img_emb/*.npy, metadata/*.parquet, image.index if present).

    Raises SnapshotError if its files do not match. Memory: a few names per file, and READERS blocks
    of embeddings while they are checked.
    """
    embeddings = numbered(folder / "img_emb", ".npy")
    if not embeddings:
        raise SnapshotError(f"{folder / 'img_emb'}: contains no *.npy. Correct `memory`.")
    dim = open_array(min(embeddings.values())).shape[1]
    shards = tuple(read_shards(folder, dim))
    if not any(shard.rows for shard in shards):
        raise SnapshotError(f"{folder}: has no rows. Correct `memory`.")
    columns = _columns([shard.metadata for shard in shards])
    _check_texts(folder, embeddings)
    files = _files(folder, shards, dim, cache)
    index = next((file for file in files if file["file"] == "image.index"), None)
    rows_only = [[f["file"], f["sha256"]] for f in files if f is not index]
    digest = digest_of(rows_only)
    manifest: dict[str, Any] = {
        "digest": digest,
        "model": None,
        "rows": sum(shard.rows for shard in shards),
        "dim": dim,
        "index": {"key": "clip-retrieval's", "sha256": index["sha256"]} if index else None,
        "files": files,
    }
    return Snapshot(folder, PREFIX + digest[:16], manifest, shards, columns, cache=cache)


@contextmanager
def open_memory(memory: Path, cache: Path, name: str | None = None) -> Iterator[Snapshot]:
    """Open the snapshot `name`, by default the current one; it cannot be deleted while open.

    `memory` is one of ours, or a folder made by clip-retrieval. Raises SnapshotError.
    """
    if (memory / "CURRENT").exists() or not (memory / "img_emb").is_dir():
        if name and not (memory / "snapshots" / name).is_dir():
            if not memory.is_dir():
                raise SnapshotError(f"{memory}: no memory is there. Was it moved or deleted?")
            raise SnapshotGone(
                f"{memory}: snapshot {name} is gone, as gc deletes old ones. What a run computed "
                "from it stays in `xmore sql RUN`; a new benchmark reads the current snapshot."
            )
        name = name or resolve_current(memory)
        with in_use(memory, name):
            snapshot = replace(open_snapshot(memory, name), cache=cache)
            check_bytes(snapshot, cache)
            yield snapshot
        return
    adopted = adopt(memory, cache)
    if name not in (None, adopted.name):
        raise SnapshotError(f"{memory}: its bytes have changed since {name}.")
    yield adopted


def check_bytes(snapshot: Snapshot, cache: Path) -> None:
    """Compare a snapshot's files with the hashes in its manifest. Raises SnapshotError.

    A file is read again only if its size or time has changed: `cache` keeps the hashes.
    """
    names = [file["file"] for file in snapshot.manifest["files"]]
    have = _hashes(snapshot.path, names, FactCache(cache, snapshot.path, "snapshot"))
    for file, sha256 in zip(snapshot.manifest["files"], have, strict=True):
        if sha256 != file["sha256"]:
            raise SnapshotError(
                f"{snapshot.path / file['file']}: its bytes differ from those that were published. "
                "Point CURRENT to another snapshot, or build the memory again."
            )


def _columns(metadata: list[Path]) -> Columns:
    """Return the names of the columns; raise SnapshotError unless all files have them, as text."""
    first = pq.read_schema(metadata[0]).names
    caption = next((name for name in CAPTION_COLUMNS if name in first), None)
    place = next((name for name in PLACE_COLUMNS if name in first), None)
    if caption is None or place is None:
        wanted = CAPTION_COLUMNS if caption is None else PLACE_COLUMNS
        raise SnapshotError(
            f"{metadata[0]}: has none of the columns {', '.join(wanted)}; it has "
            f"{', '.join(first)}."
        )
    for file in metadata:
        schema = pq.read_schema(file)
        for name in (caption, place):
            if schema.names.count(name) != 1:
                raise SnapshotError(
                    f"{file}: has {schema.names.count(name)} columns `{name}`, but "
                    f"{metadata[0].name} has one; it has {', '.join(schema.names)}."
                )
            kind = schema.field(name).type
            if not holds_text(kind) and not (name == place and pa.types.is_integer(kind)):
                raise SnapshotError(
                    f"{file}: column `{name}` is of type {kind}, not text. Write it as strings."
                )
    return Columns(key=None, caption=caption, place=place)


def _check_texts(folder: Path, embeddings: dict[int, Path]) -> None:
    """Raise SnapshotError if there are embeddings of texts that do not fit those of images."""
    texts = numbered(folder / "text_emb", ".npy")
    if texts:
        check_pairs(folder, embeddings, texts)
    for number, path in texts.items():
        rows, expected = len(open_array(path)), len(open_array(embeddings[number]))
        if rows != expected:
            raise SnapshotError(
                f"{path} has {rows} rows but {embeddings[number].name} has {expected}."
            )


def _files(
    folder: Path, shards: tuple[MemoryShard, ...], dim: int, cache: Path
) -> list[dict[str, Any]]:
    """Return the facts of a folder's files. Embeddings that are hashed are checked as well."""
    names = {f"img_emb/{shard.embeddings.name}": shard for shard in shards}

    def check(name: str) -> None:
        if name in names:
            only = Snapshot(folder, "", {"dim": dim}, (names[name],))
            for _ in embedding_blocks(only):  # checks each row
                pass

    every = [*names, *sorted(f"metadata/{shard.metadata.name}" for shard in shards)]
    if (folder / "image.index").is_file():
        every.append("image.index")
    hashes = _hashes(folder, every, FactCache(cache, folder, "adopted-checked"), check)
    return [
        {"file": name, "bytes": (folder / name).stat().st_size, "sha256": sha256}
        for name, sha256 in zip(every, hashes, strict=True)
    ]


def _hashes(
    folder: Path,
    names: list[str],
    facts: FactCache,
    check: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """Return the sha256 of files, READERS at a time; `facts` keeps each soon after it is made.

    Memory: that of as many checks, and 1 kB per file that is read.
    """

    def hashed(name: str) -> str:
        check(name)
        return digest_file(folder / name)

    found: dict[str, Any] = {name: facts.get(name) for name in names}
    with ThreadPoolExecutor(READERS) as pool:
        coming = {name: pool.submit(hashed, name) for name in names if found[name] is None}
        try:
            for name in track(names, "memory hashing", "file"):
                if name in coming:
                    found[name] = coming[name].result()
                    facts.put(name, found[name])
                    facts.save_now_and_then(names)
        finally:
            pool.shutdown(cancel_futures=True)
            facts.save(names)
    return [found[name] for name in names]
