"""Embed shards into clip-retrieval's layout; a killed run goes on at its shard."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index_build.shards import Shard
from xmore.config import ExecutionConfig
from xmore.encoders import OpenClipEncoder
from xmore.features import encode_images, encode_texts
from xmore.paths import sweep, write_whole
from xmore.progress import track

ROW_GROUP = 4096  # small, so that the captions of a few rows are cheap to look up


@dataclass(frozen=True)
class Embedded:
    """What embedding came to."""

    rows: int
    dim: int
    failures: Counter[str]
    without_caption: int
    embedded: int  # shards that this call has embedded; the others were there


def embed_shards(
    shard: Callable[[int], Shard],
    count: int,
    folder: Path,
    encoder: OpenClipEncoder,
    execution: ExecutionConfig,
) -> Embedded:
    """Write img_emb/, text_emb/ (where the model has texts) and metadata/ under `folder`.

    A shard is done when its `<folder>.done/<n>.json` is there, written last: those are not
    embedded again. Memory: what `encode_images` holds, and one shard's features and metadata.
    """
    sweep(folder)
    records, new = [], 0
    for number in track(range(count), "memory embedding", "shard"):
        done = folder.with_name(f"{folder.name}.done") / f"{number:05d}.json"
        if not done.exists():
            record = _embed_shard(shard(number), folder, encoder, execution)
            write_whole(done, json.dumps(record).encode())
            new += 1
        records.append(json.loads(done.read_bytes()))
    return Embedded(
        rows=sum(record["rows"] for record in records),
        dim=max(record["dim"] for record in records),
        failures=sum((Counter(record["failures"]) for record in records), Counter()),
        without_caption=sum(record["without_caption"] for record in records),
        embedded=new,
    )


def _embed_shard(
    shard: Shard, folder: Path, encoder: OpenClipEncoder, execution: ExecutionConfig
) -> dict[str, Any]:
    features = encode_images(shard.images, encoder, execution)
    without_caption = 0
    if features.kept:
        name = f"{shard.number:05d}"
        rows = shard.rows.take(features.kept)
        captions = rows["caption"].to_pylist()
        without_caption = sum(not caption.strip() for caption in captions)
        _save_array(folder / "img_emb" / f"img_emb_{name}.npy", features.unit)
        if encoder.has_text:
            texts = encode_texts(captions, encoder, execution.batch_size)
            _save_array(folder / "text_emb" / f"text_emb_{name}.npy", texts.unit)
        _save_table(folder / "metadata" / f"metadata_{name}.parquet", rows)
    failures = shard.failures + Counter(features.rejected.values())
    return {
        "rows": len(features.kept),
        "dim": int(features.unit.shape[1]),
        "failures": dict(failures),
        "without_caption": without_caption,
    }


def _save_array(path: Path, unit: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, unit.astype(np.float16))  # as clip-retrieval stores them
    write_whole(path, buffer.getvalue())


def _save_table(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP)
    write_whole(path, buffer.getvalue())
