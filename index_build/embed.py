"""Embed a batch's shards into clip-retrieval's layout. A killed run resumes at its shard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from index_build.base.batches import Batch
from index_build.base.features import KINDS, describe, part, save_array, write_record
from index_build.base.shards import Features, PairShard, load_shard
from index_build.base.tables import write_table
from xmore.config.execution import ExecutionConfig
from xmore.files.progress import track
from xmore.models.encoder import OpenClipEncoder
from xmore.models.features import encode_images, encode_texts
from xmore.store.made_by import made_by

log = logging.getLogger(__name__)


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


def _images_of(batch: Batch, number: int) -> int:
    causes = pq.read_table(batch.outcome(number), columns=["cause"])["cause"]
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
