"""The features of a batch's shards, in clip-retrieval's layout, and the record of each shard.

features-<model>/img_emb/ text_emb/ metadata/   one file each per shard
features-<model>/done/00000.json                rows, checksums; written last
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from index_build.base.batches import Batch
from xmore.files.digests import digest_file, has_digest
from xmore.files.errors import SnapshotError
from xmore.files.paths import write_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed, unsealed
from xmore.store.artifacts import move_aside

log = logging.getLogger(__name__)

KINDS = {"img_emb": "npy", "text_emb": "npy", "metadata": "parquet"}


def part(folder: Path, kind: str, number: int) -> Path:
    """Return the path of a shard's img_emb, text_emb or metadata."""
    return folder / kind / f"{kind}_{number:05d}.{KINDS[kind]}"


def record_path(folder: Path, number: int) -> Path:
    """Return the path of the result of embedding a shard."""
    return folder / "done" / f"{number:05d}.json"


def to_embed(batch: Batch, folder: Path) -> list[int]:
    """Return the numbers of a batch's shards without features in `folder`."""
    return [number for number in batch.attempted() if not record_path(folder, number).exists()]


def read_record(folder: Path, number: int) -> dict[str, Any]:
    """Read the result of embedding a shard: rows, dim, rejected (row_key -> cause), files.

    `made_by` has versions and device, if a model was run; older records lack it.
    """
    path = record_path(folder, number)
    try:
        return unsealed(path.read_bytes())
    except ValueError as error:
        raise SnapshotError(
            f"{path}: damaged ({error}). Delete it, and the next re-index embeds its shard again."
        ) from error


def read_whole_record(folder: Path, number: int) -> dict[str, Any]:
    """Read a shard's record. Raises SnapshotError if the shard is not as it was embedded."""
    for path in damaged_features(folder, number):
        raise SnapshotError(
            f"{path}: its bytes are not those that were embedded. Run the same command again: it "
            "embeds them again."
        )
    return read_record(folder, number)


def write_record(folder: Path, number: int, record: dict[str, Any]) -> None:
    """Record that a shard is embedded."""
    write_whole(record_path(folder, number), sealed(record))


def damaged_features(folder: Path, number: int) -> list[Path]:
    """Return which of a shard's record and files are not as they were written, if it has any.

    Each is read once a process.
    """
    record = record_path(folder, number)
    if not record.exists():
        return []
    try:
        files = read_record(folder, number)["files"].items()
        return [
            path
            for kind, facts in files
            if not has_digest(path := part(folder, kind, number), facts["sha256"])
        ]
    except (SnapshotError, KeyError, TypeError, AttributeError):
        return [record]


def set_damaged_aside(batch: Batch, folder: Path) -> list[Path]:
    """Move a batch's damaged features aside, so that their shards are embedded again.

    Each file is compared with its shard's record, once a process. Returns where they are now.
    """
    moved = []
    for number in track(batch.attempted(), f"memory checking {batch.source}", "shard"):
        for path in damaged_features(folder, number):
            log.warning("%s: its bytes are not those that were embedded; embedding it again", path)
            moved += set_features_aside(folder, number, [path])
    return moved


def set_features_aside(folder: Path, number: int, files: list[Path]) -> list[Path]:
    """Move a shard's record and some of its files aside, so that it is embedded again."""
    # The record first: without it, a shard is not embedded.
    existing = [path for path in (record_path(folder, number), *files) if path.exists()]
    return [move_aside(path) for path in dict.fromkeys(existing)]


def set_shard_aside(batch: Batch, number: int) -> list[Path]:
    """Move aside all that is known of a shard's rows: they count as never attempted."""
    moved = []
    for folder in sorted(batch.path.glob("features-*")):
        moved += set_features_aside(folder, number, [part(folder, kind, number) for kind in KINDS])
    outcomes = batch.outcome(number)
    # The checksums last: a shard that has lost its tar only is damaged.
    files = (batch.tar(number), outcomes, batch.sums(number))
    return moved + [move_aside(path) for path in files if path.exists()]


def describe(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return sizes and checksums of a shard's files, by kind."""
    return {
        kind: {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        for kind, path in files.items()
    }


def save_array(path: Path, unit: np.ndarray) -> None:
    """Write (n, D) rows as float16, as clip-retrieval stores them."""
    buffer = io.BytesIO()
    np.save(buffer, unit.astype(np.float16))
    write_whole(path, buffer.getvalue())
