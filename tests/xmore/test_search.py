import json
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmore.search import Neighbours, exact_search, index_search, recall

CASES = json.loads((Path(__file__).parents[1] / "cases" / "search.json").read_text())


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


def flat_index(memory, path):
    index = faiss.IndexFlatIP(memory.shape[1])
    index.add(memory)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("k", [1, 16, 50, 60])
def test_index_search_equals_exact_search(tmp_path, k):
    """k = 60 is more than the index holds: padded with -1 and NaN."""
    rng = np.random.default_rng(9)
    memory, queries = unit(rng, 50), unit(rng, 6)
    exact = exact_search(queries, [(0, memory)], k)
    found = index_search(queries, flat_index(memory, tmp_path / "flat.index"), k, len(memory))
    np.testing.assert_array_equal(found.ids, exact.ids)
    np.testing.assert_allclose(found.similarities, exact.similarities, rtol=0, atol=1e-6)
    assert found.ids.shape == (6, k) and recall(found, exact) == 1.0
    assert (found.ids[:, 50:] == -1).all() and np.isnan(found.similarities[:, 50:]).all()


def test_index_search_puts_ties_in_order_of_memory_id(tmp_path):
    rng = np.random.default_rng(3)
    memory = rng.integers(-1, 2, (20, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, (8, 3)).astype(np.float32)
    found = index_search(queries, flat_index(memory, tmp_path / "flat.index"), 20, len(memory))
    assert_found(found, *brute_force(queries, memory, 20))
