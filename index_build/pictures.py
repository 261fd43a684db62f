"""The pictures behind a memory's rows, as far as they are still here."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.images import ImageRejected, read_image
from xmore.memory import Snapshot


def memory_picture(snapshot: Snapshot, memory_id: int) -> bytes | None:
    """The image of a row: from its source's folder, or from the download that it came with.

    None where it is not kept: an adopted folder, or a source that is gone.
    """
    number = int(snapshot.starts.searchsorted(memory_id, side="right")) - 1
    shard = snapshot.shards[number]
    with suppress(OSError, KeyError, IndexError, tarfile.TarError, pa.ArrowInvalid, ImageRejected):
        columns = ["source", "image_path"]
        table = pq.read_table(shard.metadata, columns=columns, partitioning=None)
        row = table.slice(memory_id - shard.start, 1).to_pylist()[0]
        source = snapshot.manifest["sources"][row["source"]]
        place = row["image_path"]
        if source["kind"] == "urls":
            made_of = snapshot.manifest["shards"][number]
            batch = snapshot.path.parents[1] / "batches" / made_of["batch"]
            return _from_tar(batch / "images" / f"{made_of['number']:05d}.tar", place)
        root = Path(source["root"])
        tar, _, member = place.partition("/")
        path = root / (tar if source["kind"] == "tars" else place)
        if source["kind"] == "clip_retrieval" or not _inside(path, root):
            return None
        return _from_tar(path, member) if source["kind"] == "tars" else read_image(path)
    return None


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _from_tar(path: Path, name: Any) -> bytes | None:
    with tarfile.open(path) as tar:
        member = tar.extractfile(name)
        return member.read() if member else None
