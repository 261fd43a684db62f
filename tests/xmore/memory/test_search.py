import json
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threads import threads

from xmore.files.errors import SnapshotError
from xmore.memory import search
from xmore.memory.rows import embeddings_of
from xmore.memory.search import (
    Depth,
    Neighbours,
    exact_search,
    index_search,
    open_index,
    recall,
    rerank,
    search_opened,
)
from xmore.memory.snapshot import MemoryShard, Snapshot

CASES = json.loads((Path(__file__).parents[2] / "cases" / "search.json").read_text())


def golden(name):
    return pytest.mark.parametrize("case", CASES[name], ids=lambda case: case["why"][:40])


def brute_force(queries, memory, k):
    """By falling similarity, then rising memory_id; (Q, K) ids with -1 and NaN where none."""
    similarities = (queries.astype(np.float64) @ memory.T.astype(np.float64)).astype(np.float32)
    ids = np.full((len(queries), k), -1)
    values = np.full((len(queries), k), np.nan, np.float32)
    for q, row in enumerate(similarities):
        best = np.lexsort((np.arange(len(row)), -row))[:k]
        ids[q, : len(best)], values[q, : len(best)] = best, row[best]
    return ids, values


def blocks(memory, edges):
    edges = [0, *sorted(edges), len(memory)]
    return [(a, memory[a:b]) for a, b in pairwise(edges)]


def assert_found(found, ids, values):
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.similarities, values)
    assert (found.ids.dtype, found.similarities.dtype) == (np.int64, np.float32)


@golden("exact_search")
def test_exact_search(case):
    memory = np.array(case["memory"], np.float32).reshape(-1, 2)
    found = exact_search(np.array([case["query"]], np.float32), [(0, memory)], case["k"])
    assert_found(found, [case["ids"]], np.array([case["similarities"]], np.float32))


@golden("recall")
def test_recall(case):
    def neighbours(ids):
        return Neighbours(np.array(ids), np.zeros(np.shape(ids), np.float32))

    assert recall(neighbours(case["found"]), neighbours(case["truth"])) == case["expected"]


@given(st.data())
def test_exact_search_equals_brute_force_for_any_split(data):
    """Small integers: sums are exact, ties are many, and rows come twice."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    n = data.draw(st.integers(1, 40))
    memory = rng.integers(-1, 2, (n, 3)).astype(np.float32)
    memory = memory[rng.integers(0, n, n)]
    queries = rng.integers(-2, 3, (data.draw(st.integers(1, 4)), 3)).astype(np.float32)
    k = data.draw(st.sampled_from([1, 2, 5, n, n + 3]))
    split = blocks(memory, data.draw(st.lists(st.integers(0, n), max_size=6)))
    assert_found(exact_search(queries, iter(split), k), *brute_force(queries, memory, k))


@pytest.mark.parametrize("rows", [1, 7, 30])
def test_blocks_of_any_size(rows):
    rng = np.random.default_rng(rows)
    memory = rng.integers(-2, 3, (30, 4)).astype(np.float32)
    queries = rng.integers(-2, 3, (5, 4)).astype(np.float32)
    split = blocks(memory, range(rows, 30, rows))
    assert_found(exact_search(queries, split, 8), *brute_force(queries, memory, 8))


def unit(rng, n, dim=64):
    rows = rng.normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_unit_vectors():
    """Where float rounding cannot swap neighbours the ids are equal; similarities always close."""
    rng = np.random.default_rng(5)
    memory, queries = unit(rng, 1000), unit(rng, 20)
    found = exact_search(queries, blocks(memory, [100, 101, 640]), 128)
    ids, values = brute_force(queries, memory, 129)
    clear = -np.diff(values, axis=1) > 1e-6
    clear = clear & np.pad(clear, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.ids[clear], ids[:, :128][clear])
    np.testing.assert_allclose(found.similarities, values[:, :128], rtol=0, atol=1e-6)


def test_a_memory_id_starts_where_its_block_says():
    rows = np.array([[1, 0], [2, 0]], np.float32)
    found = exact_search(np.array([[1, 0]], np.float32), [(10, rows), (500, rows)], 4)
    assert found.ids.tolist() == [[11, 501, 10, 500]]


@pytest.fixture
def one_thread():
    """Several share a product's columns as their kernels like: docs/footguns.md, 11."""
    with threads(1):
        yield


@pytest.mark.parametrize("rows", [10, 100, 1003])
@pytest.mark.parametrize("queries", [1, 20])
def test_equal_rows_have_equal_similarities(rows, queries, one_thread):
    """Wherever they stand in a block, and in a block of whatever size."""
    rng = np.random.default_rng(rows)
    memory = np.repeat(unit(rng, 1, 384), rows, axis=0)
    found = exact_search(unit(rng, queries, 384), blocks(memory, [rows // 3, rows - 1]), rows)
    assert (found.ids == np.arange(rows)).all()
    assert (found.similarities == found.similarities[:, :1]).all()


def snapshot_of(folder, memory, key="Flat", shard=7):
    """A snapshot's folder: float16 shards, and an index made by faiss itself."""
    (folder / "img_emb").mkdir(parents=True)
    shards = []
    for start in range(0, len(memory), shard):
        path = folder / "img_emb" / f"img_emb_{start:05d}.npy"
        np.save(path, memory[start : start + shard].astype(np.float16))
        shards.append(MemoryShard(path, path, start, len(memory[start : start + shard])))
    facts = {"rows": len(memory), "dim": memory.shape[1]}
    snapshot = Snapshot(folder, "s", facts, tuple(shards))
    index = faiss.index_factory(memory.shape[1], key, faiss.METRIC_INNER_PRODUCT)
    index.train(memory)
    index.add(memory)
    faiss.write_index(index, str(snapshot.index_path))
    return snapshot


def halves(rng, n, dim=64):
    """Unit rows that float16 holds exactly."""
    return unit(rng, n, dim).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("k", [1, 16, 50, 60])
def test_index_search_equals_exact_search(tmp_path, k, factor):
    """k = 60 is more than the index holds: padded with -1 and NaN."""
    rng = np.random.default_rng(9)
    memory, queries = halves(rng, 50), unit(rng, 6)
    exact = exact_search(queries, [(0, memory)], k)
    found = index_search(queries, snapshot_of(tmp_path, memory), Depth(k, factor))
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_allclose(found.similarities, exact.similarities, rtol=0, atol=1e-6)
    assert found.ids.shape == (6, k) and recall(found, exact) == 1.0
    assert (found.ids[:, 50:] == -1).all() and np.isnan(found.similarities[:, 50:]).all()


@pytest.mark.parametrize("factor", [1, 2])
def test_index_search_puts_ties_in_order_of_memory_id(tmp_path, factor):
    rng = np.random.default_rng(3)
    memory = rng.integers(-1, 2, (20, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, (8, 3)).astype(np.float32)
    found = index_search(queries, snapshot_of(tmp_path, memory), Depth(20, factor))
    assert_found(found, *brute_force(queries, memory, 20))


def test_exact_products_mend_what_a_coarse_index_mixes_up(tmp_path):
    rng = np.random.default_rng(4)
    memory, queries = halves(rng, 400, 16), unit(rng, 20, 16)
    snapshot = snapshot_of(tmp_path, memory, "PQ4x4", shard=90)
    exact = exact_search(queries, [(0, memory)], 10)
    recalls = [recall(index_search(queries, snapshot, Depth(10, f)), exact) for f in (1, 4, 40)]
    assert recalls[0] < 0.5 < recalls[1] < recalls[2] == 1
    whole = index_search(queries, snapshot, Depth(10, 40))
    np.testing.assert_array_equal(whole.ids, exact.ids)
    np.testing.assert_allclose(whole.similarities, exact.similarities, rtol=0, atol=1e-6)


@given(st.data())
def test_rerank_equals_brute_force_among_the_candidates(data):
    """Ties, rows that come twice, queries with few or no candidates, and any bound on memory."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    memory = rng.integers(-1, 2, (30, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (5, 3)).astype(np.float32)
    k = data.draw(st.integers(1, 12))
    ids = np.array([rng.permutation(30)[:10] for _ in queries])
    ids[:, data.draw(st.integers(0, 10)) :] = -1
    ids[0, data.draw(st.integers(0, 10)) :] = -1
    asked = []

    def rows_of(wanted):
        assert (np.diff(wanted) > 0).all()
        asked.append(len(wanted))
        return memory[wanted]

    with pytest.MonkeyPatch.context() as patch:
        per_query = 4 * 10 * 3
        patch.setattr(search, "RERANK_BYTES", per_query * data.draw(st.integers(1, 6)))
        found = rerank(queries, ids, k, rows_of)
        assert max(asked) * 4 * 3 <= search.RERANK_BYTES
    for query, candidates, got, values in zip(
        queries, ids, found.ids, found.similarities, strict=True
    ):
        there = np.sort(candidates[candidates >= 0])
        places, similarities = brute_force(query[None], memory[there], k)
        expected = np.where(places[0] < 0, -1, there[places[0]] if len(there) else -1)
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(values, similarities[0])


def test_rerank_gives_equal_rows_equal_similarities():
    rng = np.random.default_rng(1)
    row = unit(rng, 1, 385)
    found = rerank(
        unit(rng, 3, 385),
        np.tile(np.arange(50)[::-1], (3, 1)),
        50,
        lambda ids: row.repeat(len(ids), 0),
    )
    assert (found.ids == np.arange(50)).all()


def test_embeddings_of_some_rows_come_in_the_order_asked_for(tmp_path):
    memory = halves(np.random.default_rng(2), 40)
    snapshot = snapshot_of(tmp_path, memory)
    ids = np.array([39, 0, 6, 7, 7, 20])
    np.testing.assert_array_equal(embeddings_of(snapshot, ids), memory[ids])
    assert embeddings_of(snapshot, ids[:0]).shape == (0, 64)


KINDS = ["Flat", "HNSW8", "IVF4,Flat", "IVF4,SQ8", "PCA8,IVF4,PQ4x4"]


@pytest.mark.parametrize("key", KINDS)
def test_an_index_is_mapped_not_loaded(tmp_path, key):
    rng = np.random.default_rng(6)
    snapshot = snapshot_of(tmp_path, unit(rng, 300, 16), key, shard=300)
    index = open_index(snapshot.index_path, 300, 16)
    assert str(snapshot.index_path) in Path("/proc/self/maps").read_text()
    assert search_opened(index, unit(rng, 2, 16), snapshot, Depth(1)).ids.min() >= 0


@pytest.mark.parametrize("key", KINDS)
@pytest.mark.parametrize("left", [0, 3, 40, 0.5, 0.9, -1])
def test_an_index_cut_short_is_refused(tmp_path, key, left):
    """faiss itself maps inverted lists past the file's end, and ends the process when it reads."""
    snapshot = snapshot_of(tmp_path, unit(np.random.default_rng(7), 1000, 16), key, shard=1000)
    data = snapshot.index_path.read_bytes()
    size = left if isinstance(left, int) else int(left * len(data))
    snapshot.index_path.write_bytes(data[:size])
    with pytest.raises(SnapshotError, match=r"image\.index: not a readable index"):
        open_index(snapshot.index_path, 1000, 16)
