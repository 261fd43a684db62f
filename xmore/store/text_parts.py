"""The parts of the text store. Each row has a checksum, so that any row can be read by itself.

A part is an uncompressed Arrow file (`.arrow`) of one batch, which is mapped into memory: reading a
row touches its pages alone. Older parts are Parquet without checksums of rows; they are compared
with their sha256, once a process, and decoded whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.errors import ArtifactError, is_shortage
from xmore.store import schemas
from xmore.store.artifacts import write_part
from xmore.store.checks import DIFFERS, is_whole

if TYPE_CHECKING:
    from xmore.models.encoder import TextFeatures

KEY = 32  # bytes of a text's sha256
MERGE = 16  # this many small parts become one
MERGED_TEXTS = 65_536  # at most; 65,536 x 768 float32 = 200 MB


@dataclass(frozen=True)
class TextRows:
    """Some rows of a part, and which of them are as they were written."""

    keys: np.ndarray  # (n, KEY) uint8
    unit: np.ndarray  # (n, D) float32
    norm: np.ndarray  # (n,) float32
    truncated: np.ndarray  # (n,) bool
    sound: np.ndarray  # (n,) bool


def read_keys(path: Path) -> np.ndarray:
    """Return the sha256 of a part's texts, (N, KEY) uint8. Raises ArtifactError."""
    return _columns(path, ["text_sha256"])["text_sha256"]


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Return the sha256 of texts, (N, KEY) uint8."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return np.frombuffer(bytearray(b"".join(digests)), np.uint8).reshape(-1, KEY)


def holds_any(path: Path, texts: Iterable[str]) -> bool:
    """Return whether a part holds one of some texts. Raises ArtifactError."""
    theirs, asked = (keys.view(f"S{KEY}").ravel() for keys in (read_keys(path), text_keys(texts)))
    return bool(np.isin(asked, theirs).any())


def read_texts(folder: Path, part: dict[str, Any], rows: np.ndarray | slice) -> TextRows:
    """Return rows of a part, as its manifest in `folder` lists it.

    `rows` are (n,) positions, or a slice. Raises ArtifactError if the file is not readable; an
    older one's, if its bytes are not those that were written.
    """
    path = folder / part["file"]
    older = path.suffix == ".parquet"
    if older and not is_whole(folder, part):
        raise ArtifactError(f"{path}: {DIFFERS}")
    columns = _columns(path)
    try:
        keys, unit, norm, truncated = (
            columns[name][rows] for name in ("text_sha256", "embedding", "norm", "truncated")
        )
        sound = np.ones(len(keys), bool)
        if not older:
            sums = checksums(folder.name, keys, unit, norm, truncated)
            sound = columns["checksum"][rows] == sums
    except IndexError as error:
        raise ArtifactError(f"{path}: has fewer rows than when it was written") from error
    return TextRows(keys, unit, norm, truncated, sound)


def write_texts(path: Path, keys: np.ndarray, features: TextFeatures) -> dict[str, Any]:
    """Write a part durably and return its manifest entry. `keys` are (N, KEY) uint8."""
    return _write(path, keys, features.unit, features.norm, features.truncated)


def merge_texts(path: Path, folder: Path, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the rows of several parts as one, in their order, and return its manifest entry.

    Memory: MERGED_TEXTS features, twice for older parts. Raises ArtifactError.
    """
    columns = [_columns(folder / part["file"]) for part in parts]
    names = ("text_sha256", "embedding", "norm", "truncated")
    return _write(path, *(np.concatenate([each[name] for each in columns]) for name in names))


def to_merge(parts: Sequence[dict[str, Any]]) -> slice | None:
    """Return the first MERGE adjacent parts that are to become one, None if there are none.

    Each has at most half of their rows, so that a text is rewritten once each time that its part
    doubles, at least; and all were made by the same versions.
    """
    for start in range(len(parts) - MERGE + 1):
        group = parts[start : start + MERGE]
        rows = [part["rows"] for part in group]
        alike = all(part.get("made_by") == group[0].get("made_by") for part in group)
        if sum(rows) <= MERGED_TEXTS and 2 * max(rows) <= sum(rows) and alike:
            return slice(start, start + MERGE)
    return None


def checksums(
    digest: str, keys: np.ndarray, unit: np.ndarray, norm: np.ndarray, truncated: np.ndarray
) -> np.ndarray:
    """Return the begin of the sha256 of each row and its model's digest: (n,) uint64."""
    n = len(keys)
    columns = (keys, unit, norm[:, None], truncated[:, None])
    block = np.concatenate([np.ascontiguousarray(c).view(np.uint8) for c in columns], axis=1)
    width, flat = block.shape[1], block.reshape(-1).data
    begun = hashlib.sha256(digest.encode())
    sums = bytearray()
    for start in range(0, n * width, width):
        row = begun.copy()
        row.update(flat[start : start + width])
        sums += row.digest()[:8]
    return np.frombuffer(bytes(sums), "<u8")


def _write(
    path: Path, keys: np.ndarray, unit: np.ndarray, norm: np.ndarray, truncated: np.ndarray
) -> dict[str, Any]:
    sums = checksums(path.parent.name, keys, unit, norm, truncated)
    table = pa.table(
        {
            "text_sha256": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(KEY), len(keys), [None, pa.py_buffer(np.ascontiguousarray(keys))]
            ),
            "embedding": schemas.fixed_lists(unit),
            "norm": norm,
            "truncated": truncated,
            "checksum": sums,
        },
        schema=schemas.caption_embeddings(unit.shape[1]),
    )
    return write_part(path, table)


def _columns(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return a part's columns; those of an Arrow file are views of the file."""
    try:
        if ".parquet" in path.name:
            table = pq.read_table(path, columns=names and list(names), partitioning=None)
            return {name: _of_parquet(table[name]) for name in table.column_names}
        with pa.memory_map(str(path)) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        return {name: _view(batch[name]) for name in names or batch.schema.names}
    except (OSError, pa.ArrowException, ValueError, KeyError, IndexError, TypeError) as error:
        if is_shortage(error):
            raise
        raise ArtifactError(f"{path}: not readable ({error})") from error


def _view(column: pa.Array) -> np.ndarray:
    kind, n = column.type, len(column)
    if pa.types.is_boolean(kind):
        return column.to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_binary(kind):
        return np.frombuffer(column.buffers()[1], np.uint8, n * KEY).reshape(n, KEY)
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
        values = np.frombuffer(column.values.buffers()[1], np.float32, n * width)
        return values.reshape(n, width)
    return np.frombuffer(column.buffers()[1], kind.to_pandas_dtype(), n)


def _of_parquet(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_string(column.type):
        data = bytes.fromhex("".join(column.to_pylist()))
        return np.frombuffer(data, np.uint8, len(column) * KEY).reshape(-1, KEY)
    if pa.types.is_fixed_size_list(column.type):
        return schemas.to_matrix(column)
    return column.to_numpy()
