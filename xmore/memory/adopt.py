"""A folder that clip-retrieval made, read as a snapshot where it lies: nothing in it is changed.

It has no manifest, names no model and binds no row to its content. So its digest is of all its
bytes (hashed once, kept in the cache while sizes and times stay the same), its model is taken on
trust, and a row's memory_key is the sha256 of its URL and caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from xmore.files.digests import FactCache, digest_file, digest_of
from xmore.files.errors import SnapshotError
from xmore.files.progress import track
from xmore.memory.snapshot import (
    Columns,
    Snapshot,
    in_use,
    open_snapshot,
    read_shards,
    resolve_current,
)

CAPTION_COLUMNS = ("caption", "TEXT", "text")
PLACE_COLUMNS = ("url", "URL", "image_path", "key")
PREFIX = "adopted-"


def adopt(folder: Path, cache: Path) -> Snapshot:
    """Open `folder` (img_emb/*.npy, metadata/*.parquet, image.index if there is one).

    Raises SnapshotError where it does not hold together. Memory: a few names a file.
    """
    embeddings = sorted((folder / "img_emb").glob("*.npy"))
    if not embeddings:
        raise SnapshotError(f"{folder / 'img_emb'}: holds no *.npy, so there is nothing to read.")
    dim = _dimensions(embeddings[0])
    shards = tuple(read_shards(folder, dim))
    columns = _columns(shards[0].metadata)
    files = _files(folder, cache)
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
    return Snapshot(folder, PREFIX + digest[:16], manifest, shards, columns)


@contextmanager
def open_memory(memory: Path, cache: Path, name: str | None = None) -> Iterator[Snapshot]:
    """The snapshot `name`, or else the one to read now, kept from being cleared away meanwhile.

    `memory` is one of ours, or a folder of clip-retrieval's. Raises SnapshotError.
    """
    if (memory / "CURRENT").exists() or not (memory / "img_emb").is_dir():
        name = name or resolve_current(memory)
        with in_use(memory, name):
            snapshot = open_snapshot(memory, name)
            check_bytes(snapshot, cache)
            yield snapshot
        return
    adopted = adopt(memory, cache)
    if name not in (None, adopted.name):
        raise SnapshotError(f"{memory}: its bytes are no longer those of {name}.")
    yield adopted


def check_bytes(snapshot: Snapshot, cache: Path) -> None:
    """Compare a snapshot's files with its manifest's checksums; raises SnapshotError.

    Each file is read once: the cache keeps its hash while size and time stay the same.
    """
    names = [file["file"] for file in snapshot.manifest["files"]]
    have = _hashes(snapshot.path, names, FactCache(cache, snapshot.path, "snapshot"))
    for file, sha256 in zip(snapshot.manifest["files"], have, strict=True):
        if sha256 != file["sha256"]:
            raise SnapshotError(
                f"{snapshot.path / file['file']}: its bytes are not those that were published. "
                "Point CURRENT to another snapshot, or build the memory again."
            )


def _dimensions(path: Path) -> int:
    try:
        rows = np.load(path, mmap_mode="r")
        sample = np.asarray(rows[:1000], np.float32)
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path}: not a readable array ({error}).") from error
    if rows.ndim != 2 or not len(rows):
        raise SnapshotError(f"{path}: shape {rows.shape}, wanted rows of embeddings.")
    lengths = np.linalg.norm(sample, axis=1)
    if not (np.abs(lengths - 1) < 0.01).all():
        raise SnapshotError(
            f"{path}: its rows are no unit vectors (lengths {lengths.min():.3f} to "
            f"{lengths.max():.3f}); normalise them as clip-retrieval does."
        )
    return rows.shape[1]


def _columns(metadata: Path) -> Columns:
    there = pq.read_schema(metadata).names
    caption = next((name for name in CAPTION_COLUMNS if name in there), None)
    place = next((name for name in PLACE_COLUMNS if name in there), None)
    if caption is None or place is None:
        wanted = CAPTION_COLUMNS if caption is None else PLACE_COLUMNS
        raise SnapshotError(
            f"{metadata}: has none of the columns {', '.join(wanted)}; it has {', '.join(there)}."
        )
    return Columns(key=None, caption=caption, place=place)


def _files(folder: Path, cache: Path) -> list[dict[str, Any]]:
    names = [
        path.relative_to(folder).as_posix()
        for kind, ending in (("img_emb", "npy"), ("metadata", "parquet"))
        for path in sorted((folder / kind).glob(f"*.{ending}"))
    ]
    if (folder / "image.index").is_file():
        names.append("image.index")
    hashes = _hashes(folder, names, FactCache(cache, folder, "adopted"))
    return [
        {"file": name, "bytes": (folder / name).stat().st_size, "sha256": sha256}
        for name, sha256 in zip(names, hashes, strict=True)
    ]


def _hashes(folder: Path, names: list[str], facts: FactCache) -> list[str]:
    found = []
    for name in track(names, "memory hashing", "file"):
        sha256 = facts.get(name)
        if sha256 is None:
            sha256 = digest_file(folder / name)
            facts.put(name, sha256)
        found.append(sha256)
    facts.save(names)
    return found
