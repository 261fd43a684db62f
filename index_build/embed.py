"""Embed pairs shard by shard into clip-retrieval's layout; a killed run goes on at its shard."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from index_build.source import Pairs
from xmore.config import ExecutionConfig
from xmore.encoders import OpenClipEncoder
from xmore.features import encode_images, encode_texts
from xmore.images import ImageRejected, read_image
from xmore.paths import write_whole
from xmore.store import BAR

ROW_GROUP = 4096  # small, so that the captions of a few rows are cheap to look up
METADATA = pa.schema(
    [
        ("memory_key", pa.string()),  # sha256 of the image's bytes
        ("image_path", pa.string()),
        ("caption", pa.string()),
    ]
)


@dataclass(frozen=True)
class Embedding:
    """How a source is embedded."""

    encoder: OpenClipEncoder
    execution: ExecutionConfig
    shard_rows: int


def embed_shards(pairs: Pairs, how: Embedding, folder: Path) -> list[dict[str, Any]]:
    """Write img_emb/, text_emb/ (where the model has texts) and metadata/ under `folder`.

    A shard is done when its `shards/<n>.json` is there, written last: those are not embedded
    again. Returns these records. Memory is bounded by one shard's features.
    """
    starts = range(0, len(pairs.paths), how.shard_rows)
    records = []
    for number, start in enumerate(tqdm(starts, "memory embedding", unit="shard", **BAR)):
        done = folder / "shards" / f"{number:05d}.json"
        if not done.exists():
            stop = min(start + how.shard_rows, len(pairs.paths))
            record = _embed_shard(pairs, range(start, stop), how, folder, number)
            write_whole(done, json.dumps(record).encode())
        records.append(json.loads(done.read_bytes()))
    return records


def _embed_shard(
    pairs: Pairs, rows: range, how: Embedding, folder: Path, number: int
) -> dict[str, Any]:
    keys: dict[int, str] = {}

    def read(i: int) -> bytes:
        path = pairs.images / pairs.paths[rows[i]]
        if not path.resolve().is_relative_to(pairs.images.resolve()):
            raise ImageRejected("path out of the folder")
        data = read_image(path)
        keys[i] = hashlib.sha256(data).hexdigest()
        return data

    features = encode_images(len(rows), read, how.encoder, how.execution)
    kept = [rows[i] for i in features.kept]
    if kept:
        name = f"{number:05d}"
        _save_array(folder / "img_emb" / f"img_emb_{name}.npy", features.unit)
        captions = [pairs.captions[i] for i in kept]
        if how.encoder.has_text:
            texts = encode_texts(captions, how.encoder, how.execution.batch_size)
            _save_array(folder / "text_emb" / f"text_emb_{name}.npy", texts.unit)
        table = pa.table(
            {
                "memory_key": [keys[i] for i in features.kept],
                "image_path": [pairs.paths[i] for i in kept],
                "caption": captions,
            },
            schema=METADATA,
        )
        _save_table(folder / "metadata" / f"metadata_{name}.parquet", table)
    causes = Counter(features.rejected.values())
    return {
        "rows": len(kept),
        "asked": len(rows),
        "rejected": dict(causes),
        "dim": int(features.unit.shape[1]),
    }


def _save_array(path: Path, unit: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, unit.astype(np.float16))  # as clip-retrieval stores them
    write_whole(path, buffer.getvalue())


def _save_table(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP)
    write_whole(path, buffer.getvalue())
