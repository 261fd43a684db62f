"""A memory's pairs as shards to embed: of downloaded tars, or of an image folder."""

from __future__ import annotations

import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.folder import Pairs
from xmore.features import ImageSource
from xmore.images import FileImages, ImageRejected

IMAGE = ".jpg"  # img2dataset's only output
FOLDER_ROWS = pa.schema([(name, pa.string()) for name in ("memory_key", "image_path", "caption")])


@dataclass(frozen=True)
class Shard:
    """Pairs that are embedded together: image i of `images` belongs to row i of `rows`."""

    number: int
    images: ImageSource
    rows: pa.Table  # memory_key, caption, and what else the source knows
    failures: Counter[str] = field(default_factory=Counter)  # rows that had no image


@dataclass(frozen=True)
class TarImages:
    """Images inside a tar, read where they lie: nothing is ever unpacked."""

    path: Path
    places: list[tuple[int, int]]  # offset and size of each

    def __len__(self) -> int:
        return len(self.places)

    def read(self, i: int) -> bytes:
        """The bytes of image `i`; raises ImageRejected."""
        offset, size = self.places[i]
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                return stream.read(size)
        except OSError as error:
            raise ImageRejected("unreadable file") from error


def downloaded_shard(rows_folder: Path, images_folder: Path, number: int) -> Shard:
    """Shard `number` of a download, in the order of its selected rows.

    img2dataset writes in the order in which answers come, so that its own order is never the
    same twice; its keys tell the place of each row.
    """
    selected = pq.read_table(rows_folder / f"{number:05d}.parquet")
    columns = ["key", "status", "sha256", "width", "height"]
    fetched = pq.read_table(images_folder / f"{number:05d}.parquet", columns=columns)
    fetched = fetched.filter(pc.equal(fetched["status"], "success")).sort_by("key")
    path = images_folder / f"{number:05d}.tar"
    with tarfile.open(path) as tar:
        places = {m.name: (m.offset_data, m.size) for m in tar if m.isreg()}
    keys = fetched["key"].to_pylist()
    # A key is the shard's number followed by the row's place, with as many digits as it takes.
    digits = len(keys[0]) - 5 if keys else 0
    rows = selected.take([int(key[len(key) - digits :]) for key in keys])
    rows = rows.add_column(0, "memory_key", fetched["sha256"])
    for name in ("width", "height"):
        rows = rows.append_column(name, fetched[name])
    return Shard(number, TarImages(path, [places[key + IMAGE] for key in keys]), rows)


def folder_shard(pairs: Pairs, shard_rows: int, number: int) -> Shard:
    """Shard `number` of an image folder."""
    span = range(number * shard_rows, min((number + 1) * shard_rows, len(pairs.paths)))
    there = {i: sha256 for i in span if (sha256 := pairs.hashes[i]) is not None}
    paths, hashes = [pairs.paths[i] for i in there], list(there.values())
    columns = [hashes, paths, [pairs.captions[i] for i in there]]
    rows = pa.table(columns, schema=FOLDER_ROWS)
    missing = Counter(
        "unreadable file" if (pairs.folder / pairs.paths[i]).exists() else "no such file"
        for i in span
        if i not in there
    )
    return Shard(number, FileImages(pairs.folder, paths, hashes), rows, missing)
