"""Test images that are in the memory: the same bytes, or nearly the same to the coarse model.

A near duplicate is a candidate whose similarity (inner product of unit features) reaches a
threshold. What a number means depends on the model: features that see texture fall faster under
re-encoding than those that see the subject. An index may miss a near duplicate; never same bytes.
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
BATCH = 65_536  # keys held at a time, 4 MB


def binds_bytes(memory: Snapshot) -> bool:
    """Whether all keys are hashes of images: those of a clip-retrieval folder are not."""
    kinds = {source["kind"] for source in memory.manifest.get("sources", {}).values()}
    return memory.columns.key is not None and "clip_retrieval" not in kinds


def rows_with(memory: Snapshot, hashes: pa.Array) -> pa.Table:
    """All memory rows whose images have one of `hashes` (sha256, hex): memory_id, memory_key.

    Streams the keys of the whole memory, BATCH at a time. None where keys are no hashes of images.
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
    """Pairs of a query and a memory row that are one image -> rows of `leaks`.

    Args:
        queries: query_id and sha256 of some queries.
        candidates: The rows of `candidates` of the same queries.
        same: Of `rows_with`; rows of no query here are passed over.
        threshold: Similarity from which on a candidate is a near duplicate, in (0, 1].
    """
    flat = _flat(candidates)
    pair = ["query_id", "memory_id"]
    twins = queries.select(["query_id", "sha256"]).join(same, "sha256", "memory_key", "inner")
    twins = twins.rename_columns(
        ["memory_key" if name == "sha256" else name for name in twins.column_names]
    )
    near = flat.filter(pc.greater_equal(flat["similarity"].cast("double"), threshold))
    near = near.join(twins.select(pair), pair, join_type="left anti")
    twins = twins.join(flat.select([*pair, "similarity"]), pair, join_type="left outer")
    tables = [
        table.append_column("kind", pa.array([kind] * len(table), "string"))
        .select(schemas.LEAKS.names)
        .cast(schemas.LEAKS)
        for table, kind in ((twins, SAME), (near, NEAR))
    ]
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in pair])


def _flat(candidates: pa.Table) -> pa.Table:
    """Candidates, a row each."""
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
