"""The pictures behind a memory's rows, as far as they are still here."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from xmore.memory import Snapshot


def memory_picture(snapshot: Snapshot, memory_id: int) -> bytes | None:
    """The image of a row: from its folder, or from the download that the snapshot was made of.

    None where it is not kept: an adopted folder, or a download that has been cleared away.
    """
    shard = snapshot.shards[int(snapshot.starts.searchsorted(memory_id, side="right")) - 1]
    with pq.ParquetFile(shard.metadata) as file:
        row = file.read().slice(memory_id - shard.start, 1).to_pylist()[0]
    source = snapshot.manifest.get("pictures", {})
    with suppress(OSError, KeyError, ValueError, tarfile.TarError):
        if "folder" in source:
            path = (Path(source["folder"]) / row["image_path"]).resolve()
            inside = path.is_relative_to(Path(source["folder"]).resolve())
            return path.read_bytes() if inside else None
        if "tars" in source:
            number = shard.metadata.stem.rpartition("_")[2]
            work = snapshot.path.parents[1] / "making"
            return _from_tar(work / source["rows"], work / source["tars"], number, row["row_key"])
    return None


def _from_tar(rows: Path, tars: Path, number: str, row_key: str) -> bytes | None:
    keys = pq.read_table(rows / f"{number}.parquet", columns=["row_key"])["row_key"]
    place = keys.to_pylist().index(row_key)
    with tarfile.open(tars / f"{number}.tar") as tar:
        name = next(name for name in tar.getnames() if name.endswith(".jpg"))
        digits = len(name) - len(".jpg") - len(number)
        member = tar.extractfile(f"{number}{place:0{digits}d}.jpg")
        return member.read() if member else None
