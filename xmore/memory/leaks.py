"""Leaks: test images in the memory, by equal bytes or as near duplicates in the coarse space.

A near duplicate is a candidate whose similarity (inner product of unit features) reaches a
threshold. The meaning of a similarity depends on the model: re-encoding an image changes features
of texture more than features of the subject. An index may miss a near duplicate, but equal bytes
are always found.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xmore.files.progress import track
from xmore.memory.snapshot import Snapshot
from xmore.store import schemas

SAME, NEAR = "same bytes", "near"
BATCH = 65_536  # keys in memory at a time, 4 MB


def binds_bytes(memory: Snapshot) -> bool:
    """Return whether all keys are hashes of images; those of a clip-retrieval folder are not."""
    kinds = {source["kind"] for source in memory.manifest.get("sources", {}).values()}
    return memory.columns.key is not None and "clip_retrieval" not in kinds


def rows_with(memory: Snapshot, hashes: pa.Array) -> pa.Table:
    """Return the memory rows whose images have one of `hashes` (sha256, hex).

    The columns are memory_id and memory_key. Streams all keys of the memory, BATCH at a time. No
    rows if the memory has no column of keys.
    """
    found = [
        pa.table({"memory_id": pa.array([], pa.int64()), "memory_key": pa.array([], "string")})
    ]
    key = memory.columns.key
    for shard in track(memory.shards if key else (), "comparing bytes", "shard"):
        start = shard.start
        with pq.ParquetFile(shard.metadata) as file:
            for batch in file.iter_batches(BATCH, columns=[key]):
                hit = pc.is_in(batch.column(0), value_set=hashes).to_numpy(zero_copy_only=False)
                ids = pa.array(start + np.flatnonzero(hit), pa.int64())
                keys = batch.column(0).filter(pa.array(hit)).cast("string")
                found.append(pa.table({"memory_id": ids, "memory_key": keys}))
                start += batch.num_rows
    return pa.concat_tables(found)


def leaked_pairs(
    queries: pa.Table, candidates: pa.Table, same: pa.Table, threshold: float
) -> pa.Table:
    """Return rows of `leaks`: the pairs of a query and a memory row with the same image.

    Args:
        queries: query_id and sha256 of some queries.
        candidates: The rows of `candidates` of these queries.
        same: Result of `rows_with`; rows that match none of these queries are ignored.
        threshold: Minimum similarity of a near duplicate, in (0, 1].
    """
    flat = _flat(candidates)
    pair = ["query_id", "memory_id"]
    exact = queries.select(["query_id", "sha256"]).join(same, "sha256", "memory_key", "inner")
    exact = exact.rename_columns(
        ["memory_key" if name == "sha256" else name for name in exact.column_names]
    )
    near = flat.filter(pc.greater_equal(flat["similarity"].cast("double"), threshold))
    near = near.join(exact.select(pair), pair, join_type="left anti")
    exact = exact.join(flat.select([*pair, "similarity"]), pair, join_type="left outer")
    tables = [
        table.append_column("kind", pa.array([kind] * len(table), "string"))
        .select(schemas.LEAKS.names)
        .cast(schemas.LEAKS)
        for table, kind in ((exact, SAME), (near, NEAR))
    ]
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in pair])


def _flat(candidates: pa.Table) -> pa.Table:
    """Return one row per candidate."""
    ids, lengths = schemas.to_ragged(candidates["memory_ids"])
    keys, _ = schemas.to_ragged(candidates["memory_keys"])
    similarities, _ = schemas.to_ragged(candidates["similarities"])
    return pa.table(
        {
            "query_id": np.repeat(candidates["query_id"].to_numpy(), lengths),
            "memory_id": pa.array(ids, pa.int64()),
            "memory_key": pa.array(keys, pa.string()),
            "similarity": pa.array(similarities, pa.float32()),
        }
    )
