"""X-MoRe's variants equal their formulas in docs/methods.md, written as loops over captions."""

import numpy as np
import pytest
from at_random import unit

from xmore.methods.base import MethodRequest, QueryShard, Scores, ScoringContext
from xmore.methods.registry import METHODS

C, D, TAU = 5, 8, 20.0
RNG = np.random.default_rng(3)
CLASSES, TEXTS = unit(RNG, C, D), unit(RNG, 30, D)
IMAGES = unit(RNG, 41, D)
# 0 to 6 captions an image, of which some are another image's.
CAPTIONS = [[f"text {n}" for n in RNG.permutation(30)[: i % 7]] for i in range(len(IMAGES))]


def p(x):
    e = np.exp(TAU * (CLASSES @ x).astype(np.float64))
    return e / e.sum()


def conf(probabilities):
    return 1 + sum(q * np.log(q) for q in probabilities if q) / np.log(C)


def similar(image, captions):
    e = np.array([np.exp(TAU * float(image @ text)) for text in captions])
    return e / e.sum()


def agreeing(image, captions):
    if len(captions) == 1:
        return [1.0]
    said = [p(text) for text in captions]
    a = [sum(said[m] @ said[n] for n in range(len(said)) if n != m) for m in range(len(said))]
    return np.array(a) / sum(a)


def literal(weights_of, image, captions):
    own = p(image)
    if not captions:
        return own
    texts = [TEXTS[int(caption.split()[1])] for caption in captions]
    weights = weights_of(image, texts)
    text = sum(w * p(t) for w, t in zip(weights, texts, strict=True))
    mine, theirs = conf(own), conf(text)
    return (mine * own + theirs * text) / (mine + theirs)


def scored(name, images, captions):
    context = ScoringContext(
        request=MethodRequest("d", 128, 16),
        class_names=[f"class {c}" for c in range(C)],
        prompts=[[f"class {c}"] for c in range(C)],
        tau=TAU,
        texts=lambda texts: np.stack(
            [(CLASSES if t.startswith("class") else TEXTS)[int(t.split()[1])] for t in texts]
        ),
        load=lambda: pytest.fail("no model is needed"),
    )
    return METHODS[name].prepare(context)(QueryShard(features=images, captions=captions))


@pytest.mark.parametrize("weights_of", [similar, agreeing])
def test_captions_are_weighted_as_the_formula_says(weights_of):
    found = scored(f"xmore-{weights_of.__name__}", IMAGES, CAPTIONS)
    wanted = [literal(weights_of, *each) for each in zip(IMAGES, CAPTIONS, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1)
    few = scored(f"xmore-{weights_of.__name__}", IMAGES[:3], CAPTIONS[:3])
    np.testing.assert_allclose(few, found[:3], atol=1e-7)  # last bits of a matrix product
    none = scored(f"xmore-{weights_of.__name__}", IMAGES[:2], [[], []])
    np.testing.assert_allclose(none, [p(image) for image in IMAGES[:2]], atol=1e-5)


def test_what_the_others_contradict_counts_little():
    sure = np.stack([CLASSES[0], CLASSES[1], CLASSES[1]])[None]
    each = np.stack([p(text) for text in sure[0]])[None]
    weights = METHODS["xmore-agreeing"].caption_weights(IMAGES[:1], sure, each, TAU)
    assert weights[0, 0] < 0.5 * weights[0, 1] and weights.sum() == pytest.approx(1)


def test_a_product_is_that_of_the_opinions():
    image = np.stack([p(x) for x in IMAGES[:6]]).astype(np.float32)
    text = np.stack([p(x) for x in TEXTS[:6]]).astype(np.float32)
    text[1], image[2], text[3] = np.nan, 1 / C, [1, 0, 0, 0, 0]
    image[4], text[4] = 1 / C, 1 / C  # neither is sure of anything
    found = METHODS["xmore-product"].class_scores(Scores(image, text), None)
    for row, (mine, theirs) in enumerate(zip(image, text, strict=True)):
        if np.isnan(theirs).any():
            wanted = mine
        else:
            a, b = conf(mine.astype(float)), conf(theirs.astype(float))
            a = 0.5 if a + b < 1e-6 else a / (a + b)
            wanted = mine.astype(float) ** a * theirs.astype(float) ** (1 - a)
            wanted = wanted / wanted.sum()
        np.testing.assert_allclose(found[row], wanted, atol=2e-5, err_msg=str(row))
    nothing = METHODS["xmore-product"].class_scores(Scores(image[:1], text[1:2]), None)
    np.testing.assert_array_equal(nothing, image[:1])
