"""TDA equals the loop over its formulas; what its caches hold at each step."""

import numpy as np
import pytest
import tda_literal as literal
from hypothesis import given
from hypothesis import strategies as st

from xmore.files.errors import ConfigError
from xmore.methods.base import MethodRequest, QueryShard, ScoringContext, Variant
from xmore.methods.options import MethodOptions
from xmore.methods.ordered import Stream
from xmore.methods.registry import METHODS
from xmore.methods.tda.caches import held

FIXED = (2.0, 5.0, 0.117, 1.0)
TAU = 25.0


def unit(rng, *shape) -> np.ndarray:
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def context_of(texts, dataset="x", **options) -> ScoringContext:
    request = MethodRequest(dataset, 1, None, MethodOptions.model_validate(options))
    names = [f"{i}" for i in range(len(texts))]
    return ScoringContext(request, names, [[n] for n in names], TAU, lambda _: texts, None)


def answers(method, evidence, order, request) -> np.ndarray:
    """The scores of all queries, by query, as the stage computes them from what is stored."""
    near = [np.flatnonzero(row) for row in evidence.near]
    stored = evidence.class_scores.astype(np.float32)
    stream = Stream(
        evidence.class_scores.argmax(1),
        evidence.entropy,
        stored.shape[1],
        lambda at: evidence.features[at],
        lambda at: (
            np.concatenate([np.zeros(0, np.int64), *(near[i] for i in at)]).astype(np.int32),
            np.array([len(near[i]) for i in at], np.int64),
        ),
    )
    steps = np.empty(len(order), np.int64)
    steps[order] = np.arange(1, len(order) + 1)
    answer = METHODS[method].follow(stream, order, request)
    got = answer(steps, stored, evidence.features)
    some = np.random.default_rng(3).permutation(len(order))[:7]  # any part, in any order
    np.testing.assert_array_equal(
        answer(steps[some], stored[some], evidence.features[some]), got[some]
    )
    return got


def images_of(rng, texts, n) -> np.ndarray:
    """Images near to some class or between two: confident and unsure ones."""
    pull = rng.random((n, 1)) * 3
    mixed = texts[rng.integers(len(texts), size=n)] + pull * texts[rng.integers(len(texts), size=n)]
    rows = mixed + rng.normal(size=mixed.shape) * 0.15
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "classes", "seed"), [(300, 6, 0), (1, 3, 1), (40, 60, 2), (150, 2, 3)]
)
def test_one_view_equals_the_loop(n, classes, seed):
    rng = np.random.default_rng(seed)
    texts = unit(rng, classes, 16)
    images, order = images_of(rng, texts, n), rng.permutation(n)
    context = context_of(texts)
    evidence = METHODS["tda"].evidence(context)(QueryShard(images))
    got = answers("tda", evidence, order, context.request)
    wide = images.astype(np.float64), texts.astype(np.float64)
    seen = [literal.one_view(wide[0][i], wide[1], TAU) for i in order]
    said = [literal.softmax(z) for z in literal.stream(seen, FIXED)]
    np.testing.assert_allclose(got[order], said, atol=1e-6)
    np.testing.assert_array_equal(got[order].argmax(1), np.argmax(said, axis=1))
    if n > 100:  # each cache plays a part
        alone = [literal.softmax(z) for _, z, _, _ in seen]
        without = [literal.softmax(z) for z in literal.stream(seen, (2.0, 5.0, 0.0, 1.0))]
        assert np.abs(np.array(alone) - without).max() > 1e-2
        assert np.abs(np.array(without) - said).max() > 1e-3 or classes == 2


def test_views_equal_the_loop():
    rng = np.random.default_rng(5)
    texts = unit(rng, 6, 16)
    clean = images_of(rng, texts, 120)
    views = clean[:, None] + rng.normal(size=(120, 20, 16)) * 0.2
    views = (views / np.linalg.norm(views, axis=2, keepdims=True)).astype(np.float32)
    order = rng.permutation(120)
    context = context_of(texts, views={"count": 20, "keep": 0.2})
    evidence = METHODS["tda-views"].evidence(context)(QueryShard(views=views))
    assert np.abs(np.linalg.norm(evidence.features, axis=1) - 1).max() > 1e-3
    got = answers("tda-views", evidence, order, context.request)
    wide = texts.astype(np.float64)
    seen = [literal.of_views(views[i].astype(np.float64), wide, TAU, 4) for i in order]
    said = [literal.softmax(z) for z in literal.stream(seen, FIXED)]
    np.testing.assert_allclose(got[order], said, atol=1e-6)
    np.testing.assert_array_equal(got[order].argmax(1), np.argmax(said, axis=1))


def test_equal_images_and_scores_that_are_certain():
    """Ties of entropy, ties of classes, and images of which one class is sure."""
    rng = np.random.default_rng(7)
    texts = np.eye(4, dtype=np.float32)
    images = np.concatenate([np.repeat(texts, 4, 0), np.full((8, 4), 0.5, np.float32)])
    images = images[rng.integers(len(images), size=80)]
    order = rng.permutation(80)
    context = context_of(texts)
    evidence = METHODS["tda"].evidence(context)(QueryShard(images))
    got = answers("tda", evidence, order, context.request)
    seen = [literal.one_view(images[i].astype(float), texts.astype(float), TAU) for i in order]
    said = [literal.softmax(z) for z in literal.stream(seen, FIXED)]
    np.testing.assert_allclose(got[order], said, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=40))
def test_the_caches_hold_what_a_loop_holds(told):
    """At every step; entropies are whole numbers, so that many are equal."""
    prediction, entropy, offered = (np.array([each[i] for each in told], int) for i in range(3))
    n = len(told)
    order = np.random.default_rng(n).permutation(n)
    found = held(prediction, entropy.astype(float), offered.astype(bool), order, 2)
    assert (np.diff(found.label) >= 0).all()
    cache: dict[int, list] = {}
    for step, query in enumerate(order.tolist(), 1):
        if offered[query]:
            literal.offer(cache, int(prediction[query]), (entropy[query], query), 2)
        now = found.at(np.array([step]))[0]
        assert sorted(
            zip(found.label[now].tolist(), found.query[now].tolist(), strict=True)
        ) == sorted((label, item[1]) for label, items in cache.items() for item in items)


def test_settings_and_orders():
    method, request = METHODS["tda"], MethodRequest("caltech101", 1, None)
    assert method.variants(["minmax", "none"], [4, 5]) == [Variant(None, 4), Variant(None, 5)]
    assert method.variants(["none"], []) == [Variant()], "a single image has no stream"
    settings = {n: (s.value, s.source) for n, s in method.settings(request, Variant()).items()}
    assert settings["positive_alpha"] == (2.0, "fixed") and settings["positive_beta"] == (
        5.0,
        "fixed",
    )
    assert settings["negative_alpha"] == (0.117, "paper")
    oracle = METHODS["tda-oracle"]
    assert oracle.settings(request, Variant())["positive_alpha"].source == "oracle"
    assert oracle.identity(request) == {"positive": [5.0, 5.0]} != method.identity(request)
    for name in ("tda-oracle", "tda-views-oracle"):
        with pytest.raises(ConfigError, match=f"not for `x`. Remove it, or use `{name[:-7]}`"):
            METHODS[name].check(MethodRequest("x", 1, None), None, [])
    with pytest.raises(ConfigError, match="not for `caltech101`"):
        METHODS["tda-views-oracle"].check(request, None, [])
