"""A folder made by clip-retrieval, read in place as a snapshot; nothing in it is changed.

It has no manifest, names no model, and has no hashes of its images. Therefore its digest is that of
all its bytes (hashed once, cached while sizes and times stay the same), its model is not checked,
and a row's memory_key is the sha256 of its URL and caption.
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
from xmore.memory.locks import in_use
from xmore.memory.snapshot import Columns, Snapshot, open_snapshot, read_shards, resolve_current

CAPTION_COLUMNS = ("caption", "TEXT", "text")
PLACE_COLUMNS = ("url", "URL", "image_path", "key")
PREFIX = "adopted-"


def adopt(folder: Path, cache: Path) -> Snapshot:
    """Open `folder` (img_emb/*.npy, metadata/*.parquet, image.index if present).

    Raises SnapshotError if its files do not match. Memory: a few names per file.
    """
    embeddings = sorted((folder / "img_emb").glob("*.npy"))
    if not embeddings:
        raise SnapshotError(f"{folder / 'img_emb'}: contains no *.npy. Correct `memory`.")
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
    """Open the snapshot `name`, by default the current one; it cannot be deleted while open.

    `memory` is one of ours, or a folder made by clip-retrieval. Raises SnapshotError.
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


def _dimensions(path: Path) -> int:
    try:
        rows = np.load(path, mmap_mode="r")
        sample = np.asarray(rows[:1000], np.float32)
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path}: not a readable array ({error}).") from error
    if rows.ndim != 2 or not len(rows):
        raise SnapshotError(f"{path}: shape {rows.shape}, expected rows of embeddings.")
    lengths = np.linalg.norm(sample, axis=1)
    if not (np.abs(lengths - 1) < 0.01).all():
        raise SnapshotError(
            f"{path}: its rows are not unit vectors (norms {lengths.min():.3f} to "
            f"{lengths.max():.3f}). Normalise them as clip-retrieval does."
        )
    return rows.shape[1]


def _columns(metadata: Path) -> Columns:
    existing = pq.read_schema(metadata).names
    caption = next((name for name in CAPTION_COLUMNS if name in existing), None)
    place = next((name for name in PLACE_COLUMNS if name in existing), None)
    if caption is None or place is None:
        wanted = CAPTION_COLUMNS if caption is None else PLACE_COLUMNS
        raise SnapshotError(
            f"{metadata}: has none of the columns {', '.join(wanted)}; "
            f"it has {', '.join(existing)}."
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
