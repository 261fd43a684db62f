"""Embed a batch's shards into clip-retrieval's layout. A killed run resumes at its shard."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from index_build.base.batches import Batch
from index_build.base.shards import Features, PairShard, load_shard
from index_build.base.tables import write_table
from xmore.config.execution import ExecutionConfig
from xmore.files.digests import digest_file, has_digest
from xmore.files.errors import SnapshotError
from xmore.files.paths import write_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed, unsealed
from xmore.models.encoder import OpenClipEncoder
from xmore.models.features import encode_images, encode_texts
from xmore.store.artifacts import move_aside
from xmore.store.made_by import made_by

log = logging.getLogger(__name__)

KINDS = {"img_emb": "npy", "text_emb": "npy", "metadata": "parquet"}


def to_embed(batch: Batch, folder: Path) -> list[int]:
    """Return the numbers of a batch's shards without features in `folder`."""
    return [number for number in batch.attempted() if not record_path(folder, number).exists()]


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
    outcomes = batch.outcomes / f"{number:05d}.parquet"
    # The checksums last: a shard that has lost its tar only is damaged.
    files = (batch.tar(number), outcomes, batch.sums(number))
    return moved + [move_aside(path) for path in files if path.exists()]


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


def embed_shards(
    batch: Batch,
    numbers: Sequence[int],
    folder: Path,
    encoder: OpenClipEncoder,
    execution: ExecutionConfig,
) -> int:
    """Write img_emb/, text_emb/ (if the model has a text tower) and metadata/ under `folder`.

    A shard is complete when its `done/<n>.json` exists, which is written last. Other processes may
    embed other shards at the same time, on any machine that can access `folder`. Returns the
    number of rows embedded. Memory: as `encode_images`, and one shard's features and metadata.
    """
    rows, sizes = 0, [_images_of(batch, number) for number in numbers]
    for number in track(numbers, f"memory embedding {batch.source}", "image", sizes=sizes):
        shard = load_shard(batch, number)
        if isinstance(shard, Features):
            record = _take_over(shard, folder)
        else:
            record = _embed_shard(shard, folder, encoder, execution)
            rows += record["rows"]
        write_record(folder, number, record)
    return rows


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


def part(folder: Path, kind: str, number: int) -> Path:
    """Return the path of a shard's img_emb, text_emb or metadata."""
    return folder / kind / f"{kind}_{number:05d}.{KINDS[kind]}"


def describe(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Return sizes and checksums of a shard's files, by kind."""
    return {
        kind: {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        for kind, path in files.items()
    }


def record_path(folder: Path, number: int) -> Path:
    """Return the path of the result of embedding a shard."""
    return folder / "done" / f"{number:05d}.json"


def _images_of(batch: Batch, number: int) -> int:
    causes = pq.read_table(batch.outcomes / f"{number:05d}.parquet", columns=["cause"])["cause"]
    return int(causes.null_count)


def _embed_shard(
    shard: PairShard, folder: Path, encoder: OpenClipEncoder, execution: ExecutionConfig
) -> dict[str, Any]:
    features = encode_images(shard.images, encoder, execution.batch_size, execution.workers)
    if features.kept:
        rows = shard.rows.take(features.kept)
        save_array(part(folder, "img_emb", shard.number), features.unit)
        if encoder.has_text:
            texts = encode_texts(rows["caption"].to_pylist(), encoder, execution.batch_size)
            save_array(part(folder, "text_emb", shard.number), texts.unit)
        write_table(part(folder, "metadata", shard.number), rows)
    keys = shard.rows["row_key"].to_pylist()
    return {
        "rows": len(features.kept),
        "dim": int(features.unit.shape[1]),
        "rejected": {keys[i]: cause for i, cause in features.rejected.items()},
        "files": describe(_files(folder, shard.number)),
        "made_by": made_by(encoder.device),
    }


def _take_over(shard: Features, folder: Path) -> dict[str, Any]:
    save_array(part(folder, "img_emb", shard.number), shard.unit)
    if shard.text is not None:
        save_array(part(folder, "text_emb", shard.number), shard.text)
    write_table(part(folder, "metadata", shard.number), shard.rows)
    return {
        "rows": len(shard.unit),
        "dim": int(shard.unit.shape[1]),
        "rejected": {},
        "files": describe(_files(folder, shard.number)),
    }


def _files(folder: Path, number: int) -> dict[str, Path]:
    files = {kind: part(folder, kind, number) for kind in KINDS}
    return {kind: path for kind, path in files.items() if path.exists()}


def save_array(path: Path, unit: np.ndarray) -> None:
    """Write (n, D) rows as float16, as clip-retrieval stores them."""
    buffer = io.BytesIO()
    np.save(buffer, unit.astype(np.float16))
    write_whole(path, buffer.getvalue())
