"""Shards that come with their embeddings: each row keeps its own image, text and metadata."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.reindex import xmore_reindex


def test_rows_of_numbered_files_stay_together(world, tmp_path):
    """Whatever the noughts before the numbers, and the kinds of strings."""
    folder = tmp_path / "foreign"
    for kind in ("img_emb", "text_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    one_hot = np.eye(12, dtype=np.float32)
    for i, (number, kind) in enumerate(
        [(1, pa.string()), (2, pa.large_string()), (10, pa.binary())]
    ):
        rows = slice(4 * i, 4 * i + 4)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", one_hot[rows])
        np.save(folder / "text_emb" / f"text_emb_{number:02d}.npy", one_hot[::-1][rows])
        captions = pa.array([str(n) for n in range(4 * i, 4 * i + 4)])
        table = pa.table({"caption": captions.cast(kind), "url": captions, "also": captions})
        pq.write_table(table, folder / "metadata" / f"metadata_{number:03d}.parquet")
    config = world.memory_config(
        memory=tmp_path / "memory",
        sources=[{"clip_retrieval": {"folder": folder}}],
        shard_rows=10,
    )
    snapshot = xmore_reindex.fn(config).snapshot
    assert snapshot.rows == 12
    for shard in snapshot.shards:
        rows = pq.read_table(shard.metadata).to_pylist()
        which = [int(row["caption"]) for row in rows]
        assert [row["also"] for row in rows] == [row["url"] for row in rows]
        assert [int(row["also"]) for row in rows] == which
        assert (np.load(shard.embeddings) == one_hot[which]).all()
        texts = shard.embeddings.parents[1] / "text_emb"
        name = shard.embeddings.name.replace("img", "text")
        assert (np.load(texts / name) == one_hot[::-1][which]).all()
