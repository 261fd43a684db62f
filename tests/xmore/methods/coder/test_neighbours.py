"""`coder`, `coder-rerank` and `coder-captions` beside slow, literal ones; random embeddings."""

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from xmore.files.errors import ConfigError
from xmore.methods.base import MethodRequest, QueryShard, ScoringContext, Variant
from xmore.methods.coder.neighbours import pairs, reranked, reworded
from xmore.methods.coder.texts import read_texts
from xmore.methods.options import CoderOptions, MethodOptions
from xmore.methods.registry import METHODS

DIM, TAU, CLASSES = 32, 60.0, 8
NAMES = [f"class {i}" for i in range(CLASSES)]
PROMPTS = [[f"a photo of a {name}.", f"a drawing of a {name}."] for name in NAMES]


def unit(text):
    """A feature that is random, and always the same for a text. Near to all others, as CLIP's."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(0.3, 1, DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def encode(texts):
    assert len(set(texts)) == len(texts) > 0, "each text is asked for once"
    return np.stack([unit(text) for text in texts])


def rows():
    """Class 0 has all kinds, 1 no synonym, 2 a description only, 3 nothing; and so on."""
    rng = np.random.default_rng(5)
    for c in range(CLASSES):
        has = {
            "synonym": [2, 0, 0, 0, 1, 3, 2, 1][c],
            "attribute": [5, 3, 1, 0, 4, 2, 0, 1][c],
            "analogue": [3, 2, 0, 0, 0, 1, 2, 4][c],
        }
        for kind, count in has.items():
            yield from ({"class": NAMES[c], "kind": kind, "text": f"{kind} {c} {i}"}
                        for i in range(count))  # fmt: skip
        for o in range(CLASSES):
            if c != o and rng.random() < 0.75:  # some pairs are missing, some in one direction
                for i in range(rng.integers(1, 4)):
                    yield {"class": NAMES[c], "kind": "versus", "other": NAMES[o],
                           "text": f"{c} not {o}: {i}"}  # fmt: skip
    yield {"class": NAMES[0], "kind": "attribute", "text": "shared by two classes"}
    yield {"class": NAMES[4], "kind": "attribute", "text": "shared by two classes"}


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row | {"made_by": "a test"}) + "\n" for row in rows()))
    return path


@pytest.fixture
def bench(texts):
    options = MethodOptions(coder=CoderOptions(texts=texts, tau=0.3))
    return ScoringContext(
        MethodRequest("any", 24, 8, options), NAMES, PROMPTS, TAU, encode, lambda: None
    )


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    near = np.stack([unit(f"a photo of a class {i % CLASSES}.") for i in range(150)])
    mixed = near + rng.normal(0.1, 0.3, near.shape)
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def mean(values):
    values = [float(value) for value in values]
    return sum(values) / len(values)


def dot(one, other):
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def name_feature(c, name=None):
    wordings = [prompt.replace(NAMES[c], name or NAMES[c]) for prompt in PROMPTS[c]]
    total = sum(unit(wording).astype(np.float64) for wording in wordings)
    return total / np.linalg.norm(total)


def stage_1(image):
    """methods.md: 100 mean([sims of att and ana ..., max over (name and syno) sims])."""
    scores = []
    for c in range(CLASSES):
        of_class = [row for row in rows() if row["class"] == NAMES[c]]
        described = [dot(image, unit(row["text"])) for row in of_class
                     if row["kind"] in ("attribute", "analogue")]  # fmt: skip
        names = [dot(image, name_feature(c))]
        names += [dot(image, name_feature(c, r["text"])) for r in of_class
                  if r["kind"] == "synonym"]  # fmt: skip
        scores.append(TAU * mean([*described, max(names)]))
    return np.array(scores)


def stage_2(image, top):
    """methods.md: R_c = mean over o of [mean <v, ovo(c|o)> - mean <v, ovo(o|c)>], missing: 0."""
    versus = {}
    for row in rows():
        if row["kind"] == "versus":
            pair = NAMES.index(row["class"]), NAMES.index(row["other"])
            versus.setdefault(pair, []).append(dot(image, unit(row["text"])))
    results = []
    for c in top:
        differences = []
        for o in top:
            if o != c:
                there = (c, o) in versus and (o, c) in versus
                difference = mean(versus[c, o]) - mean(versus[o, c]) if there else 0
                differences.append(difference)
        results.append(mean(differences))
    return results


def test_coder_equals_its_formula(bench, images):
    got = METHODS["coder"].prepare(bench)(QueryShard(images))
    assert got.shape == (150, CLASSES) and got.dtype == np.float64
    np.testing.assert_allclose(got, [softmax(stage_1(image)) for image in images], atol=1e-5)
    plain = softmax(TAU * images @ np.stack([name_feature(c) for c in range(CLASSES)]).T, axis=1)
    assert (got.argmax(1) != plain.argmax(1)).any(), "the texts matter"


def test_a_gap_of_tau_is_no_close_call(bench, images):
    options = bench.request.options.coder.model_copy(update={"tau": 0})
    request = replace(bench.request, options=MethodOptions(coder=options))
    names, prompts = [*NAMES, NAMES[0]], [*PROMPTS, PROMPTS[0]]
    alike = replace(  # p1 = p2 for some
        bench,
        request=request,
        class_names=names,
        prompts=prompts,
        texts=lambda t: np.stack([*map(unit, t)]),
    )
    first = METHODS["coder"].prepare(alike)(QueryShard(images)).astype(np.float32)
    got = METHODS["coder-rerank"].prepare(alike)(QueryShard(images))
    gaps = -np.diff(-np.sort(-first, axis=1)[:, :2], axis=1)
    assert (gaps == 0).any()
    np.testing.assert_array_equal(got.astype(np.float32), first)


@pytest.mark.parametrize(("tau", "top"), [(0.3, 5), (1, 3), (0, 5), (1, 100)])
def test_coder_rerank_equals_its_formula(bench, images, tau, top):
    options = bench.request.options.coder.model_copy(update={"tau": tau, "top": top})
    bench = replace(bench, request=replace(bench.request, options=MethodOptions(coder=options)))
    first = METHODS["coder"].prepare(bench)(QueryShard(images))
    got = METHODS["coder-rerank"].prepare(bench)(QueryShard(images))
    changed = []
    for image, before, after in zip(images, first, got, strict=True):
        probabilities = softmax(stage_1(image))
        best = sorted(range(CLASSES), key=lambda c: -probabilities[c])[: min(top, CLASSES)]
        expected = probabilities
        if probabilities[best[0]] - probabilities[best[1]] < tau:
            found = dict(zip(best, stage_2(image, best), strict=True))
            order = sorted(best, key=lambda c: -found[c])  # stable: ties to the better rank
            expected = probabilities.copy()
            expected[order] = probabilities[best]
        np.testing.assert_allclose(after, expected, atol=1e-5)
        assert after.argmax() == expected.argmax()
        np.testing.assert_allclose(np.sort(after), np.sort(before), atol=1e-6)  # a distribution
        changed.append(before.argmax() != after.argmax())
    assert any(changed) == (tau > 0)
    assert not all(changed)


def test_a_winner_wins_where_probabilities_tie():
    probabilities = np.array([[0.3, 0.3, 0.3, 0.1]], np.float32)
    evidence, top = np.array([[0.0, 0.5, 0.7]], np.float32), np.array([[0, 1, 2]])
    got = reranked(probabilities, evidence, top)
    assert got.argmax() == 2
    np.testing.assert_allclose(got, probabilities, atol=1e-7)
    same = reranked(probabilities, np.zeros((1, 3), np.float32), top)
    assert same.argmax() == 0, "no evidence changes nothing"


def of_captions(image, classes, captions):
    """The formula of `coder-captions`, a caption at a time."""
    if not captions:
        return np.array([TAU * dot(image, one) for one in classes])
    seen = [math.exp(TAU * dot(image, unit(caption))) for caption in captions]
    rows = []
    for one in classes:
        near = [dot(unit(caption), one) for caption in captions]
        said = sum(weight * value for weight, value in zip(seen, near, strict=True)) / sum(seen)
        rows.append(TAU * mean([dot(image, one), said]))
    return np.array(rows)


def test_coder_captions_equals_its_formula(bench, images):
    rng = np.random.default_rng(3)
    captions = [[f"caption {i}" for i in rng.permutation(60)[: rng.integers(0, 9)]] for _ in images]
    captions[0] = []
    captions[1] *= 2  # repeated ones count as often as they are there
    got = METHODS["coder-captions"].prepare(bench)(QueryShard(images, captions=captions))
    classes = np.stack([name_feature(c) for c in range(CLASSES)])
    expected = [
        softmax(of_captions(image, classes, own))
        for image, own in zip(images, captions, strict=True)
    ]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    plain = softmax(TAU * images @ classes.T, axis=1)
    np.testing.assert_allclose(got[0], plain[0], atol=1e-5)
    assert (got.argmax(1) != plain.argmax(1)).any(), "the captions matter"


def test_queries_without_any_caption_are_clips(bench, images):
    from xmore.methods.scoring import class_probabilities

    got = METHODS["coder-captions"].prepare(bench)(QueryShard(images, captions=[[]] * len(images)))
    clip = class_probabilities(images, bench.class_features, TAU)
    np.testing.assert_array_equal(got, clip)


def test_evidence_equals_its_formula(bench, images, texts):
    told_apart = pairs(read_texts(texts, NAMES), bench.class_features, encode)
    top = np.stack([np.random.default_rng(i).permutation(CLASSES)[:5] for i in range(len(images))])
    expected = [stage_2(image, own.tolist()) for image, own in zip(images, top, strict=True)]
    np.testing.assert_allclose(told_apart.evidence(images, top), expected, atol=1e-5)


def probability_bound(tau, inexact=0.0):
    """How far two float32 probabilities may lie apart whose inner products are added up otherwise.

    A product's rows depend in their last bits on how many stand beside them, each processor's
    kernels in their own way. An inner product of unit rows is exact to DIM x u, two of it differ
    by twice that (Higham 2002, section 3.1); a softmax moves by half of what its logits do.
    `inexact` is how far the rows themselves may lie apart.
    """
    u = np.finfo(np.float32).eps / 2
    return tau * (2 * DIM * u + inexact) / 2


def test_shards_do_not_change_answers(bench, images):
    tau = 10.0
    bench = replace(bench, tau=tau)
    captions = [[f"caption {i}", "shared"] for i in range(len(images))]
    # The captions' weights move by as much as their logits do, and with them the mixed row.
    mixed = 2 * probability_bound(tau)
    bounds = {
        "coder": probability_bound(tau),
        "coder-rerank": probability_bound(tau),
        "coder-captions": probability_bound(tau, mixed),
    }
    for name, bound in bounds.items():
        score = METHODS[name].prepare(bench)
        whole = score(QueryShard(images, captions=captions))
        parts = [
            score(QueryShard(images[i : i + 7], captions=captions[i : i + 7]))
            for i in range(0, 150, 7)
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=bound)
        assert np.ptp(whole, axis=0).min() > 10 * bound, "another row's answer would be seen"


def test_classes_that_share_a_name_share_its_texts(texts, bench, images):
    names, prompts = [*NAMES, NAMES[0]], [*PROMPTS, PROMPTS[0]]
    twice = replace(bench, class_names=names, prompts=prompts)
    got = METHODS["coder"].prepare(twice)(QueryShard(images))
    np.testing.assert_allclose(got[:, 0], got[:, -1], atol=1e-6)


def test_synonyms_take_the_names_place():
    assert reworded(["a photo of a photo."], "photo", ["snapshot"]) == [["a photo of a snapshot."]]
    of_two = reworded(["a cat, a pet.", "it purrs"], "cat", ["kitty", "feline"])
    assert of_two == [["a kitty, a pet."], ["a feline, a pet."]], "a prompt without it says nothing"
    assert reworded(["it purrs"], "cat", ["kitty"]) == [["a photo of a kitty."]]
    assert reworded(["a cat"], "cat", []) == []


def test_what_they_depend_on(bench, texts):
    request = bench.request
    before = {name: METHODS[name].identity(request) for name in ("coder", "coder-rerank")}
    texts.write_text(texts.read_text().replace("attribute 0 0", "attribute 0 zero"))
    for name, old in before.items():
        assert METHODS[name].identity(request)["texts"] != old["texts"]
    changed = replace(request, options=MethodOptions(coder=CoderOptions(texts=texts, tau=0.2)))
    assert METHODS["coder"].identity(changed) == METHODS["coder"].identity(request)
    assert METHODS["coder-rerank"].identity(changed) != METHODS["coder-rerank"].identity(request)
    assert METHODS["coder-captions"].identity(changed) == {}


def test_settings_say_where_values_are_from(bench):
    found = METHODS["coder-rerank"].settings(bench.request, Variant())
    assert {name: (s.value, s.source) for name, s in found.items()} == {
        "texts": ("texts.jsonl", "fixed"),
        "tau": (0.3, "fixed"),
        "top": (5, "fixed"),
    }
    found = METHODS["coder-captions"].settings(bench.request, Variant())
    assert found["M"].value == 8


def test_rerank_without_pairs_is_refused(bench, texts):
    kept = [line for line in texts.read_text().splitlines(True) if '"versus"' not in line]
    texts.write_text("".join(kept))
    with pytest.raises(ConfigError, match="no `versus` texts"):
        METHODS["coder-rerank"].check(bench.request, None, NAMES)


def test_classes_by_their_names_alone_are_counted(bench, caplog):
    METHODS["coder"].check(bench.request, None, NAMES)
    assert "1 of 8 classes" in caplog.text


def test_a_dataset_without_texts_is_refused(bench):
    request = replace(bench.request, dataset="nowhere", options=MethodOptions())
    for name in ("coder", "coder-rerank"):
        with pytest.raises(ConfigError, match="xmore texts nowhere --out FILE"):
            METHODS[name].check(request, None, NAMES)
    METHODS["coder-captions"].check(request, None, NAMES)
