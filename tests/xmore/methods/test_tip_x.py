"""TIP-X against its formulas, over a memory of random vectors."""

import numpy as np
import pytest
from at_random import unit
from foreign_memory import context_over, stored, write_memory
from tip_x_literal import literal

from xmore.methods import tip_x
from xmore.methods.base import QueryShard
from xmore.methods.registry import METHODS

TAU, C, D = 30.0, 5, 16
PROMPTS = [[f"a photo of a class {c}."] for c in range(C)]


class Bench:
    """Random classes and queries over a memory of `rows` vectors, some of them twice."""

    def __init__(self, folder, rows, leaked=(), prompts=PROMPTS):
        rng = np.random.default_rng(rows)
        flat = [text for of_class in prompts for text in of_class]
        self.texts = dict(zip(flat, unit(rng, len(flat), D), strict=True))
        memory = unit(rng, rows, D)
        memory[rows // 2 :: 3] = memory[: len(memory[rows // 2 :: 3])]  # equal images: ties
        self.queries = unit(rng, 70, D)
        self.queries[3] = memory[0]
        keys = write_memory(folder, memory)
        self.memory, self.out = stored(memory), leaked
        left_out = frozenset(keys[j] for j in leaked)
        self.context = context_over(folder, self.texts, prompts, TAU, left_out)

    def score(self, *slices):
        score = METHODS["tip-x"].prepare(self.context)
        return np.concatenate([score(QueryShard(self.queries[s])) for s in slices])

    def literal(self, look=None):
        known = self.memory, self.context.class_features, TAU, self.out, look
        return [literal(query, *known) for query in self.queries]


def assert_equal(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got.argmax(1), np.argmax(expected, 1))
    assert got.dtype == np.float64


@pytest.mark.parametrize("rows", [90, 16, 5, 1])
def test_scores_are_those_of_the_formulas(tmp_path, rows):
    bench = Bench(tmp_path / "memory", rows)
    assert_equal(bench.score(slice(None)), bench.literal())


def test_a_class_of_several_prompts_is_their_mean(tmp_path):
    prompts = [[f"{c}, {i}" for i in range(c + 1)] for c in range(C)]
    bench = Bench(tmp_path / "memory", 90, prompts=prompts)
    assert_equal(bench.score(slice(None)), bench.literal())


def test_a_test_image_is_no_key(tmp_path):
    bench = Bench(tmp_path / "memory", 90, leaked=range(0, 90, 2))
    assert_equal(bench.score(slice(None)), bench.literal())
    whole = Bench(tmp_path / "whole", 90)
    assert np.abs(whole.score(slice(None)) - bench.score(slice(None))).max() > 1e-3


def test_without_any_key_it_is_clip(tmp_path):
    bench = Bench(tmp_path / "memory", 20, leaked=range(20))
    powers = np.exp(TAU * bench.queries.astype(np.float64) @ bench.context.class_features.T)
    assert_equal(bench.score(slice(None)), powers / powers.sum(1, keepdims=True))


def test_a_class_whose_nearest_images_are_all_test_images_has_no_key(tmp_path, monkeypatch):
    monkeypatch.setattr("xmore.memory.allowed.LOOK", 4)
    bench = Bench(tmp_path / "memory", 90)
    nearest = np.argsort(-bench.memory @ bench.context.class_features[1], kind="stable")[:4]
    some = Bench(tmp_path / "some", 90, leaked=nearest.tolist())
    assert_equal(some.score(slice(None)), some.literal(look=4))


def test_scores_do_not_depend_on_parts_or_blocks(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "memory", 90)
    whole = bench.score(slice(None))
    parts = bench.score(slice(0, 1), slice(1, 40), slice(40, None))
    np.testing.assert_array_equal(parts, whole)
    monkeypatch.setattr(tip_x, "BLOCK", 64)
    np.testing.assert_array_equal(bench.score(slice(None)), whole)
