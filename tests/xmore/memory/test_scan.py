from dataclasses import replace

import numpy as np
import pytest

from xmore.memory import scan as scanning
from xmore.memory import search
from xmore.memory.device import DeviceRows
from xmore.memory.rows import embedding_blocks
from xmore.memory.scan import Scan
from xmore.memory.search import Searcher, exact_search
from xmore.memory.snapshot import MemoryShard, Snapshot

DIM, ROWS, QUERIES, PART, K = 48, 300, 50, 8, 12


def unit(rng, n):
    rows = rng.normal(size=(n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def memory(tmp_path):
    """Shards of 100 rows in float16, without metadata."""
    rows, shards = unit(np.random.default_rng(1), ROWS).astype(np.float16), []
    for start in range(0, ROWS, 100):
        path = tmp_path / f"img_emb_{start:05d}.npy"
        np.save(path, rows[start : start + 100])
        shards.append(MemoryShard(path, path, start, 100))
    return Snapshot(tmp_path, "s", {"rows": ROWS, "dim": DIM}, tuple(shards))


@pytest.fixture
def passes(monkeypatch):
    """The number of times that the memory is read."""
    begun = []

    def counted(snapshot):
        begun.append(snapshot)
        yield from embedding_blocks(snapshot)

    monkeypatch.setattr(search, "embedding_blocks", counted)
    return begun


def scanned(memory, first=0, searcher=Searcher):
    """The neighbours of each part from the part `first` on, and which queries were read."""
    queries, asked = unit(np.random.default_rng(2), QUERIES), []
    scan = Scan(searcher(memory, True), K, QUERIES, PART)

    def read(start, stop):
        asked.append((start, stop))
        return queries[start:stop]

    starts = range(first * PART, QUERIES, PART)
    return [scan(start, min(start + PART, QUERIES), read) for start in starts], asked


def alone(memory, first=0):
    queries = unit(np.random.default_rng(2), QUERIES)
    starts = range(first * PART, QUERIES, PART)
    return [exact_search(queries[s : s + PART], embedding_blocks(memory), K) for s in starts]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.ids.tobytes() == theirs.ids.tobytes()
        assert mine.similarities.tobytes() == theirs.similarities.tobytes()


def test_one_pass_finds_the_very_neighbours_of_each_part(memory, passes):
    found, asked = scanned(memory)
    assert len(passes) == 1 and asked == [(0, QUERIES)]
    assert_equal(found, alone(memory))


@pytest.mark.parametrize("bound", ["SCAN_BYTES", "SCAN_MACS"])
def test_as_many_parts_at_once_as_the_bound_holds(memory, passes, monkeypatch, bound):
    """Two parts and a half: two. At least one, however small the bound."""
    query = {"SCAN_BYTES": 8 * DIM + 24 * K, "SCAN_MACS": ROWS * DIM}[bound]
    monkeypatch.setattr(scanning, bound, 2.5 * PART * query)
    found, asked = scanned(memory)
    assert asked == [(0, 16), (16, 32), (32, 48), (48, 50)] and len(passes) == 4
    assert_equal(found, alone(memory))
    monkeypatch.setattr(scanning, bound, 1)
    assert len(scanned(memory)[1]) == 7


def test_a_killed_stage_searches_only_the_parts_that_it_lacks(memory):
    found, asked = scanned(memory, first=3)
    assert asked == [(24, QUERIES)]
    assert_equal(found, alone(memory, first=3))


def test_the_index_is_asked_part_by_part(memory, passes, monkeypatch):
    monkeypatch.setattr(search, "index_search", lambda queries, rows, depth: len(queries))
    _, asked = scanned(memory, searcher=lambda rows, exact: Searcher(rows, exact=False))
    assert [stop - start for start, stop in asked] == [8] * 6 + [2] and not passes


def test_the_rows_on_a_device_are_searched_as_those_here(memory):
    here = Searcher(memory, True)
    there = replace(here, device="cpu:0")  # any name but `cpu` takes a device's way
    queries = unit(np.random.default_rng(2), QUERIES)
    mine, theirs = there(queries, K), here(queries, K)
    np.testing.assert_array_equal(mine.ids, theirs.ids)
    np.testing.assert_allclose(mine.similarities, theirs.similarities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fits", [True, False])
def test_blocks_go_to_a_device_once_a_stage(memory, monkeypatch, fits):
    """Four passes over the queries; where the rows do not fit, each sends them anew."""
    sent, send = [], DeviceRows._send

    def counted(self, block):
        sent.append(len(block))
        return send(self, block)

    monkeypatch.setattr(DeviceRows, "_send", counted)
    monkeypatch.setattr(DeviceRows, "_fits", lambda self: fits)
    monkeypatch.setattr(scanning, "SCAN_BYTES", 2.5 * PART * (8 * DIM + 24 * K))
    found, asked = scanned(memory, searcher=lambda *how: Searcher(*how, device="cpu:0"))
    assert len(asked) == 4 and sent == [100] * 3 * (1 if fits else 4)
    for mine, theirs in zip(found, alone(memory), strict=True):
        np.testing.assert_array_equal(mine.ids, theirs.ids)
