import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmore.memory.captions import GATHER_ROWS, coarse_rank, fine_similarities, rank, usable

CASES = json.loads((Path(__file__).parents[2] / "cases" / "captions.json").read_text())


def golden(name):
    return pytest.mark.parametrize("case", CASES[name], ids=lambda case: case["why"][:40])


def kept(chosen, present):
    """Positions that exist, best first, per query; those that do not must come last."""
    rows = []
    for positions, there in zip(chosen, present, strict=True):
        assert there.tolist() == sorted(there, reverse=True)
        rows.append(positions[there].tolist())
    return rows


@golden("usable")
def test_usable(case):
    got = usable(np.array(case["codes"]), case["deduplicate"])
    np.testing.assert_array_equal(got, np.array(case["expected"], bool))


@golden("rank")
def test_rank(case):
    similarities = np.array(case["similarities"], np.float32)
    assert kept(*rank(similarities, np.array(case["keep"], bool), case["m"])) == case["expected"]


@golden("coarse_rank")
def test_coarse_rank(case):
    assert kept(*coarse_rank(np.array(case["keep"], bool), case["m"])) == case["expected"]


matrices = st.tuples(st.integers(1, 4), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*[integers(shape, *bounds) for bounds in ((-1, 4), (-2, 2))])
)


def integers(shape, low, high):
    row = st.lists(st.integers(low, high), min_size=shape[1], max_size=shape[1])
    return st.lists(row, min_size=shape[0], max_size=shape[0]).map(np.array)


@given(matrices, st.integers(1, 10), st.booleans())
def test_equals_brute_force(codes_and_similarities, m, deduplicate):
    codes, similarities = codes_and_similarities
    keep = usable(codes, deduplicate)
    direct = kept(*rank(similarities.astype(np.float32), keep, m))
    indirect = kept(*coarse_rank(keep, m))
    for q, row in enumerate(codes.tolist()):
        seen, usable_positions = set(), []
        for position, code in enumerate(row):
            if code != -1 and not (deduplicate and code in seen):
                usable_positions.append(position)
            seen.add(code)
        best = sorted(usable_positions, key=lambda p: (-similarities[q, p], p))
        assert direct[q] == best[:m]
        assert indirect[q] == usable_positions[:m]


@pytest.mark.parametrize("queries", [0, 1, GATHER_ROWS, 2 * GATHER_ROWS + 3])
def test_fine_similarities_equal_a_plain_loop(queries):
    rng = np.random.default_rng(queries)
    images = rng.integers(-3, 4, (queries, 5)).astype(np.float32)
    texts = rng.integers(-3, 4, (7, 5)).astype(np.float32)
    codes = rng.integers(-1, 7, (queries, 6))
    got = fine_similarities(images, texts, codes)
    assert got.dtype == np.float32
    for q in range(queries):
        for k in range(6):
            code = codes[q, k]
            products = [float(a) * float(b) for a, b in zip(images[q], texts[code], strict=True)]
            assert got[q, k] == (sum(products) if code >= 0 else -np.inf)


def test_fine_similarities_of_unit_vectors():
    rng = np.random.default_rng(2)
    images, texts = (rng.normal(size=(n, 512)).astype(np.float32) for n in (5, 40))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    codes = np.stack([rng.permutation(40)[:16] for _ in range(5)])
    exact = np.take_along_axis(images.astype(np.float64) @ texts.T.astype(np.float64), codes, 1)
    np.testing.assert_allclose(fine_similarities(images, texts, codes), exact, rtol=0, atol=1e-6)


def test_no_text_at_all():
    texts = np.zeros((0, 3), np.float32)
    got = fine_similarities(np.ones((2, 3), np.float32), texts, np.full((2, 4), -1))
    assert (got == -np.inf).all()


def test_equal_texts_tie_where_they_are_not_deduplicated():
    """37 candidates with one text: equal similarities, so the first 16 in coarse order."""
    rng = np.random.default_rng(0)
    images, text = rng.normal(size=(70, 512)), rng.normal(size=(1, 512))
    codes = np.zeros((70, 37), np.int64)
    similarities = fine_similarities(images.astype(np.float32), text.astype(np.float32), codes)
    chosen = kept(*rank(similarities, usable(codes, False), 16))
    assert chosen == [list(range(16))] * 70
