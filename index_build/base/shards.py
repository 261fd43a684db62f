"""A batch's shards, ready to embed: from downloaded or local tars, from files, from features."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base.batches import Batch, check_outcomes
from index_build.base.metadata import plain
from xmore.images.readers import Files, ListedImages, Tars
from xmore.memory.snapshot import numbered, open_array

STREAMED = 10_000  # rows of metadata in memory at a time
NAMED_BY_DUCKDB = ("filename", "file_row_number")  # columns that it adds to the rows


@dataclass(frozen=True)
class PairShard:
    """Pairs that are embedded together: image i of `images` belongs to row i of `rows`."""

    number: int
    images: ListedImages
    rows: pa.Table  # row_key, memory_key, caption, and the source's other columns


@dataclass(frozen=True)
class Features:
    """Pairs that come with their embeddings."""

    number: int
    unit: np.ndarray  # (n, D) float16 unit rows
    text: np.ndarray | None  # (n, D) float16 unit rows; None if the folder has none
    rows: pa.Table


def load_shard(batch: Batch, number: int) -> PairShard | Features:
    """Load shard `number` of a batch: the rows of its outcomes that have an image.

    Raises SnapshotError if its outcomes or its tar are not as they were written.
    """
    check_outcomes(batch, number, images=True)
    outcomes = pq.read_table(batch.outcome(number))
    rows = outcomes.filter(pc.is_null(outcomes["cause"])).drop_columns(["cause", "tries", "host"])
    rows = rows.append_column("source", pa.array([batch.source] * len(rows), pa.string()))
    if batch.kind == "urls":
        return PairShard(number, _downloaded(batch, number, rows), rows)
    root = Path(str(batch.root))
    places = rows["image_path"].to_pylist()
    hashes = rows["memory_key"].to_pylist()
    offsets, sizes = rows["offset"].to_pylist(), rows["bytes"].to_pylist()
    rows = rows.drop_columns(["offset", "bytes"])
    if batch.kind == "images":
        return PairShard(number, ListedImages(Files(root), places, hashes), rows)
    if batch.kind == "tars":
        tars = [place.partition("/")[0] for place in places]
        where = dict(zip(places, zip(tars, offsets, sizes, strict=True), strict=True))
        return PairShard(number, ListedImages(Tars(root, where), places, hashes), rows)
    return _features(number, root, rows, np.array(offsets))


class MetadataStream:
    """Takes rows of a Parquet file; the file is read once if they are asked for in their order.

    A shard has fewer rows than a file of clip-retrieval, which has one row group. Memory: STREAMED
    rows, and a buffer per column.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rewind()

    def _rewind(self) -> None:
        file = pq.ParquetFile(self._path, buffer_size=1 << 20)
        self._batches = file.iter_batches(STREAMED)
        self._held = file.schema_arrow.empty_table()
        self._first = 0  # the place of the first row of `_held`

    def take(self, places: np.ndarray) -> pa.Table:
        """Return the rows at (n,) ascending places."""
        if len(places) and places[0] < self._first:
            self._rewind()
        found = [self._held.slice(0, 0)]
        while len(places):
            after = self._first + len(self._held)
            inside = int(np.searchsorted(places, after))
            found.append(self._held.take(pa.array(places[:inside] - self._first)))
            places = places[inside:]
            if len(places):
                self._first, self._held = after, pa.Table.from_batches([next(self._batches)])
        return pa.concat_tables(found)


@lru_cache(1)
def _stream(path: Path, changed: int) -> MetadataStream:
    """Return the stream of a file, as it was `changed` last: a batch's shards share it."""
    return MetadataStream(path)


@lru_cache(1)
def _listed(root: Path, changed: int) -> tuple[dict[str, int], dict[int, Path], dict[int, Path]]:
    """Return an adopted folder's numbers by its files of images, its texts and its metadata."""
    numbers = {path.name: number for number, path in numbered(root / "img_emb", ".npy").items()}
    return numbers, numbered(root / "text_emb", ".npy"), numbered(root / "metadata", ".parquet")


def _downloaded(batch: Batch, number: int, rows: pa.Table) -> ListedImages:
    tar = batch.tar(number)
    with tarfile.open(tar) as archive:
        places = {m.name: (tar.name, m.offset_data, m.size) for m in archive if m.isreg()}
    names = rows["image_path"].to_pylist()
    # An image that was scaled down no longer has the bytes that its memory_key is the hash of.
    return ListedImages(Tars(batch.images, places), names, [None] * len(names))


def _features(number: int, root: Path, rows: pa.Table, offsets: np.ndarray) -> Features:
    """Read rows of an adopted folder, with all its columns. Memory: these, and STREAMED rows."""
    files = np.array(rows["image_path"].to_pylist())
    numbers, words, metadata = _listed(root, (root / "img_emb").stat().st_mtime_ns)
    unit, text, theirs = [], [], []
    for name in dict.fromkeys(files.tolist()):
        at = offsets[files == name]
        place = numbers[name]
        unit.append(np.asarray(open_array(root / "img_emb" / name)[at], np.float16))
        text.append(open_array(words[place])[at] if place in words else None)
        theirs.append(_stream(metadata[place], metadata[place].stat().st_mtime_ns).take(at))
    tables = [plain(table) for table in theirs]
    known = pa.concat_tables(tables, promote_options="permissive") if theirs else rows
    for column in known.column_names:
        if column not in (*rows.column_names, *NAMED_BY_DUCKDB):
            rows = rows.append_column(column, known[column])
    texts = [np.asarray(block, np.float16) for block in text if block is not None]
    complete = len(texts) == len(text)
    return Features(
        number, np.concatenate(unit), np.concatenate(texts) if complete and texts else None, rows
    )
