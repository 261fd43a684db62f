"""The index of a memory's texts: built beside that of its images, kept, added to, verified."""

import json
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.reindex import xmore_reindex
from flows.upkeep import check
from index_build.index.build import build_index
from index_build.plan import make_plan
from index_build.upkeep.gc import collect
from xmore.config.load import load_config
from xmore.config.memory import IndexConfig, ReindexConfig
from xmore.files.errors import ConfigError, SnapshotError
from xmore.memory.rows import embedding_blocks, embeddings_of
from xmore.memory.search import Depth, exact_search, index_search
from xmore.memory.snapshot import open_snapshot, seen_by


@pytest.fixture
def config(world, tmp_path):
    """40 of the world's drawings under a model that has texts; `shard_rows` leaves two shards."""
    captions = tmp_path / "captions.parquet"
    pq.write_table(pq.read_table(world.root / "captions.parquet").slice(0, 40), captions)
    return world.memory_config(
        captions,
        memory=tmp_path / "memory",
        model_name="lite0",
        model={"folder": world.root / "models" / "lite0"},
        index={"text": True},
        shard_rows=25,
    )


def test_texts_are_indexed_searched_verified_and_indexed_again(config, world):
    made = xmore_reindex.fn(config).snapshot
    texts = seen_by(made, "text")
    assert texts.index_path == made.path / "text.index" and made.manifest["index"] == made.index
    assert texts.index == made.manifest["text_index"] and texts.index["how"] == "built"
    assert "images" in texts.index["measured"]["of"], "the other kind of queries"
    rows = np.concatenate([np.load(p) for p in sorted(made.path.glob("text_emb/*.npy"))])
    np.testing.assert_array_equal(embeddings_of(texts, np.arange(40)), rows.astype(np.float32))
    queries = embeddings_of(made, np.arange(7))
    by_index = index_search(queries, texts, Depth(5))
    exact = exact_search(queries, embedding_blocks(texts), 5)
    np.testing.assert_allclose(by_index.similarities, exact.similarities, atol=1e-5)
    found = faiss.read_index(str(made.path / "text.index")).search(rows[:3].astype("f4"), 1)
    np.testing.assert_allclose(found[0], 1, atol=2e-3)
    assert check(made) == [] and seen_by(texts, "image") == made

    captions = config.sources[0].images.captions  # more rows come
    pq.write_table(pq.read_table(world.root / "captions.parquet").slice(0, 55), captions)
    more = xmore_reindex.fn(config).snapshot
    indexed = faiss.read_index(str(more.path / "text.index"))
    assert (more.rows, indexed.ntotal) == (55, 55) and check(more) == []
    grown = more.manifest["text_index"]
    assert (grown["how"], grown["built_of"]) == ("added to", 40)  # GROWTH counts from there
    back = index_search(
        embeddings_of(seen_by(more, "text"), np.arange(55)), seen_by(more, "text"), Depth(1)
    )
    np.testing.assert_allclose(back.similarities[:, 0], 1, atol=2e-3)

    index = more.path / "text.index"
    index.write_bytes(b"x" * index.stat().st_size)
    assert any("text.index" in fault for fault in check(more))
    index.unlink()
    with pytest.raises(SnapshotError, match=r"text\.index: is absent"):
        open_snapshot(config.memory, more.name)


def test_gc_takes_rows_that_left_from_both_embeddings(config, world):
    xmore_reindex.fn(config)
    captions = config.sources[0].images.captions
    left = pq.read_table(world.root / "captions.parquet").slice(5, 35)
    pq.write_table(left, captions)
    snapshot = xmore_reindex.fn(config).snapshot
    collect(config.memory, keep=1, dry_run=False)
    for kind in ("img_emb", "text_emb"):
        files = config.memory.glob(f"batches/*/features-*/{kind}/*.npy")
        assert sum(len(np.load(path)) for path in files) == 35, kind
    assert check(snapshot) == []


def test_rows_that_are_not_unit_vectors_are_found_among_texts_too(config):
    from index_build.verify import check_rows

    made = xmore_reindex.fn(config).snapshot
    path = min((made.path / "text_emb").glob("*.npy"))
    rows = np.load(path)
    path.unlink()  # a hard link to the batch's own file
    rows[3] *= 2
    np.save(path, rows)
    assert any("row 3 is not a unit vector" in fault for fault in check_rows(made))


def test_turning_it_on_keeps_the_images_index_and_embeds_nothing(config):
    without = config.model_copy(update={"index": IndexConfig()})
    before = xmore_reindex.fn(without).snapshot
    assert "text_index" not in before.manifest and not (before.path / "text.index").exists()
    after = xmore_reindex.fn(config)
    facts = after.snapshot.manifest
    assert (after.embedded, facts["index"]["how"], facts["text_index"]["how"]) == (
        0,
        "kept",
        "built",
    )
    assert facts["index"]["sha256"] == before.manifest["index"]["sha256"]
    assert xmore_reindex.fn(config).skipped


def test_plans_without_it_keep_their_digests(config):
    """What a snapshot was made from before there was a text index is still the same plan."""
    config = config.model_copy(update={"index": IndexConfig()})
    assert config.index.wanted == {"key": None, "memory_gb": 16, "target_recall": 0.95, "rerank": 1}
    with_it = config.model_copy(update={"index": IndexConfig(text=True)})
    assert make_plan(config).digest != make_plan(with_it).digest


def test_a_model_without_texts_is_refused(config, tmp_path):
    data = config.model_dump(mode="json", exclude_unset=True)
    data["model"]["pooled"] = True
    (tmp_path / "memory.yaml").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"`index\.text` needs embeddings of captions") as refused:
        load_config(tmp_path / "memory.yaml", ReindexConfig)
    assert "\n" not in str(refused.value)


def test_embeddings_without_texts_are_refused(world):
    memory = world.root / "memory"
    snapshot = open_snapshot(memory, (memory / "CURRENT").read_text().strip())
    assert seen_by(snapshot, "text") is None
    with pytest.raises(SnapshotError, match=r"`index\.text: true` has nothing to index"):
        build_index(Path(snapshot.path), IndexConfig(text=True), kind="text")
