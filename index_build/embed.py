"""Embed a batch's shards into clip-retrieval's layout. A killed run resumes at its shard."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from index_build.base.batches import Batch
from index_build.base.features import KINDS, describe, part, save_array, write_record
from index_build.base.shards import Features, PairShard, load_shard
from index_build.base.tables import write_table
from xmore.images.readers import ListedImages
from xmore.models.encoder import OpenClipEncoder
from xmore.models.features import ImageFeatures, decoder_of, encode_parts, encode_texts
from xmore.store.made_by import made_by


def embed_shards(
    batch: Batch,
    shards: Sequence[tuple[int, int]],
    folder: Path,
    encoder: OpenClipEncoder,
    batch_size: int,
    workers: int,
) -> Iterator[int]:
    """Write img_emb/, text_emb/ (if the model has a text tower) and metadata/ under `folder`.

    A shard is given as its number and that of its images. It is complete when its
    `done/<n>.json` exists, which is written last. Other processes may embed other shards at the
    same time, on any machine that can access `folder`. Yields the number of rows embedded of each
    shard. Memory: as `encode_parts`, one shard's features and metadata, and the metadata of the
    next.
    """
    loaded: deque[PairShard] = deque()  # whose images are decoded already

    def images() -> Iterator[ListedImages]:
        for number, _ in shards:
            shard = load_shard(batch, number)
            assert isinstance(shard, PairShard)
            loaded.append(shard)
            yield shard.images

    count = sum(images for _, images in shards)
    decoder = decoder_of(encoder, batch_size, workers)
    for features in encode_parts(images(), count, encoder, decoder):
        yield _write_shard(loaded.popleft(), features, folder, encoder, batch_size)


def take_over_shards(batch: Batch, numbers: Sequence[int], folder: Path) -> Iterator[int]:
    """Copy a clip-retrieval folder's embeddings as `embed_shards` writes them; no model is needed.

    Yields the number of rows embedded of each shard: 0. Memory: one shard.
    """
    for number in numbers:
        shard = load_shard(batch, number)
        assert isinstance(shard, Features)
        _take_over(shard, folder)
        yield 0


def record_empty_shards(numbers: Sequence[int], folder: Path) -> Iterator[int]:
    """Record shards of which no image is left, as `embed_shards` does; no model is needed.

    Yields the number of rows embedded of each shard: 0.
    """
    for number in numbers:
        write_record(folder, number, {"rows": 0, "dim": 0, "rejected": {}, "files": {}})
        yield 0


def images_of(batch: Batch, number: int) -> int:
    """Return the number of a shard's images."""
    causes = pq.read_table(batch.outcome(number), columns=["cause"])["cause"]
    return int(causes.null_count)


def _write_shard(
    shard: PairShard,
    features: ImageFeatures,
    folder: Path,
    encoder: OpenClipEncoder,
    batch_size: int,
) -> int:
    if features.kept:
        rows = shard.rows.take(features.kept)
        save_array(part(folder, "img_emb", shard.number), features.unit)
        if encoder.has_text:
            texts = encode_texts(rows["caption"].to_pylist(), encoder, batch_size)
            save_array(part(folder, "text_emb", shard.number), texts.unit)
        write_table(part(folder, "metadata", shard.number), rows)
    keys = shard.rows["row_key"].to_pylist()
    record = {
        "rows": len(features.kept),
        "dim": int(features.unit.shape[1]),
        "rejected": {keys[i]: cause for i, cause in features.rejected.items()},
        "files": describe(_files(folder, shard.number)),
        "made_by": made_by(encoder.device),
    }
    write_record(folder, shard.number, record)
    return len(features.kept)


def _take_over(shard: Features, folder: Path) -> None:
    save_array(part(folder, "img_emb", shard.number), shard.unit)
    if shard.text is not None:
        save_array(part(folder, "text_emb", shard.number), shard.text)
    write_table(part(folder, "metadata", shard.number), shard.rows)
    record = {
        "rows": len(shard.unit),
        "dim": int(shard.unit.shape[1]),
        "rejected": {},
        "files": describe(_files(folder, shard.number)),
    }
    write_record(folder, shard.number, record)


def _files(folder: Path, number: int) -> dict[str, Path]:
    files = {kind: part(folder, kind, number) for kind in KINDS}
    return {kind: path for kind, path in files.items() if path.exists()}
