"""The images of a memory's rows, as far as they still exist on this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.errors import DatasetError
from xmore.images.decode import ImageRejected, read_image
from xmore.images.webdataset import Shard, split_name
from xmore.memory.snapshot import Snapshot


def memory_pictures(snapshot: Snapshot, memory_ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (memory_id, bytes of its image) for the rows whose image still exists.

    Images are read from the sources' folders or from the downloads, in the order of storage, so
    that each shard and each tar is read once. Rows of an adopted folder or a deleted source are
    skipped. Memory: one image, and the paths of a shard.
    """
    by_shard: dict[int, list[int]] = defaultdict(list)
    for memory_id in sorted(set(memory_ids)):
        number = int(snapshot.starts.searchsorted(memory_id, side="right")) - 1
        by_shard[number].append(memory_id)
    for number, mine in by_shard.items():
        with suppress(OSError, KeyError, IndexError, pa.ArrowInvalid):
            for file, members in _places(snapshot, number, mine).items():
                yield from _read(file, members)


_Members = dict[int, str | None]  # memory_id -> member of a tar; None if the file is the image


def _places(snapshot: Snapshot, number: int, memory_ids: list[int]) -> dict[Path, _Members]:
    """Return the files that contain the images of some rows of a shard."""
    shard = snapshot.shards[number]
    table = pq.read_table(shard.metadata, columns=["source", "image_path"], partitioning=None)
    rows = table.take([memory_id - shard.start for memory_id in memory_ids]).to_pylist()
    found: dict[Path, _Members] = defaultdict(dict)
    for memory_id, row in zip(memory_ids, rows, strict=True):
        source, place = snapshot.manifest["sources"][row["source"]], row["image_path"]
        if place is None or source["kind"] == "clip_retrieval":
            continue
        if source["kind"] == "urls":
            made_of = snapshot.manifest["shards"][number]
            images = snapshot.path.parents[1] / "batches" / made_of["batch"] / "images"
            found[images / f"{made_of['number']:05d}.tar"][memory_id] = place
            continue
        root = Path(source["root"])
        tar, _, member = place.partition("/")
        path = root / (tar if source["kind"] == "tars" else place)
        if path.resolve().is_relative_to(root.resolve()):
            found[path][memory_id] = member if source["kind"] == "tars" else None
    return found


def _read(file: Path, members: _Members) -> Iterator[tuple[int, bytes]]:
    with suppress(OSError, DatasetError, ImageRejected):
        if None in members.values():
            yield from ((memory_id, read_image(file)) for memory_id in members)
            return
        ids = {name: memory_id for memory_id, name in members.items() if name}
        named = [split_name(name) for name in ids]
        with Shard(file, {extension for _, extension in filter(None, named)}) as shard:
            for member in shard:
                if member.cause is None and member.name in ids:  # of two, the first is the row's
                    yield ids.pop(member.name), shard.read(member, member.size)
