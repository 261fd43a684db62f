"""A batch's shards, ready to embed: from downloaded or local tars, from files, from features."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base.batches import Batch, check_outcomes
from index_build.base.metadata import plain
from xmore.images.readers import Files, ListedImages, Tars
from xmore.memory.snapshot import numbered, open_array

if TYPE_CHECKING:
    from xmore.models.features import ImageSource  # imports torch

NAMED_BY_DUCKDB = ("filename", "file_row_number")  # columns that it adds to the rows


@dataclass(frozen=True)
class PairShard:
    """Pairs that are embedded together: image i of `images` belongs to row i of `rows`."""

    number: int
    images: ImageSource
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


def _downloaded(batch: Batch, number: int, rows: pa.Table) -> ListedImages:
    tar = batch.tar(number)
    with tarfile.open(tar) as archive:
        places = {m.name: (tar.name, m.offset_data, m.size) for m in archive if m.isreg()}
    names = rows["image_path"].to_pylist()
    # An image that was scaled down no longer has the bytes that its memory_key is the hash of.
    return ListedImages(Tars(batch.images, places), names, [None] * len(names))


def _features(number: int, root: Path, rows: pa.Table, offsets: np.ndarray) -> Features:
    """Read rows of an adopted folder, with all its columns. Memory: one file's columns."""
    files = np.array(rows["image_path"].to_pylist())
    numbers = {path.name: number for number, path in numbered(root / "img_emb", ".npy").items()}
    words, metadata = numbered(root / "text_emb", ".npy"), numbered(root / "metadata", ".parquet")
    unit, text, theirs = [], [], []
    for name in dict.fromkeys(files.tolist()):
        at = offsets[files == name]
        place = numbers[name]
        unit.append(np.asarray(open_array(root / "img_emb" / name)[at], np.float16))
        text.append(open_array(words[place])[at] if place in words else None)
        theirs.append(pq.read_table(metadata[place], partitioning=None).take(pa.array(at)))
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
