"""A memory whose captions are partly, or all, empty: nothing is dropped silently."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows


@pytest.mark.parametrize("keep", [0, 3])
def test_queries_without_captions_have_their_image_alone(world, tmp_path, keep):
    table = pq.read_table(world.root / "captions.parquet")[:60]
    texts = [text if i < keep else "  " for i, text in enumerate(table["caption"].to_pylist())]
    table = table.set_column(table.column_names.index("caption"), "caption", pa.array(texts))
    pq.write_table(table, tmp_path / "captions.parquet")
    xmore_reindex.fn(
        world.memory_config(memory=tmp_path / "m", captions=tmp_path / "captions.parquet")
    )
    config = world.config(tmp_path / "r", memory=tmp_path / "m")
    run = load_run(config.results, xmore_benchmark.fn(config))
    scores = next(read_rows(r).to_pylist() for r in run.artifacts if r.stage == "scores")
    bare = {row["query_id"] for row in scores if row["caption_count"] == 0}
    assert (len(bare) == 20) if keep == 0 else (len(bare) < 20)
    for row in scores:
        assert (row["text_scores"] is None) == (row["query_id"] in bare)
        assert (row["text_confidence"] is None) == (row["query_id"] in bare)
    for ref in (r for r in run.artifacts if r.stage == "predictions"):
        for row in read_rows(ref).to_pylist():
            if row["query_id"] not in bare:
                continue
            assert row["text_prediction"] is None
            if row["method"] == "caption-ensemble":
                assert row["prediction"] is None and not row["top5"]
            else:
                assert row["prediction"] == row["image_prediction"]
            if row["method"] in ("equal", "xmore"):
                assert (row["image_weight"], row["text_weight"]) == (1, 0)
    metrics = next(read_rows(r).to_pylist() for r in run.artifacts if r.stage == "metrics")
    for row in metrics:
        assert row["n"] == 20
        assert row["n_covered"] == (20 if row["method"] == "clip" else 20 - len(bare))
        if row["method"] != "clip":
            assert row["n_short"] >= len(bare)
