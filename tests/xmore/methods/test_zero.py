"""ZERO against a loop written from its description; its ties; the views that it reads."""

import math

import numpy as np
import pytest
from at_random import unit

from xmore.methods.base import MethodRequest, QueryShard, ScoringContext, ViewSet
from xmore.methods.options import MethodOptions, ViewsOptions, ZeroOptions
from xmore.methods.registry import METHODS

ZERO = METHODS["zero"]


def literal(views, texts, tau, keep):
    """(V, D), (C, D) -> C shares of the votes, one view and one class after the other."""
    scores = [[float(np.dot(view, text)) for text in texts] for view in views.astype(np.float64)]
    entropies, answers = [], []
    for row in scores:
        weights = [math.exp(tau * (score - max(row))) for score in row]
        shares = [weight / sum(weights) for weight in weights]
        entropies.append(-sum(p * math.log(p) for p in shares if p > 0))
        answers.append(row.index(max(row)))
    order = sorted(range(len(views)), key=lambda i: entropies[i])
    kept = max(1, int(len(views) * keep))
    votes = [0] * len(texts)
    for i in order[:kept]:
        votes[answers[i]] += 1
    tied = [label for label, count in enumerate(votes) if count == max(votes)]
    if len(tied) > 1:
        decides = [answers[i] for i in order[kept:] if answers[i] in tied]
        means = [sum(row[label] for row in scores) / len(views) for label in tied]
        votes[decides[0] if decides else tied[means.index(max(means))]] += 1
    return [count / sum(votes) for count in votes]


def scored(views, texts, tau=20.0, keep=0.3):
    """What ZERO says of (Q, V, D) views."""
    request = MethodRequest("x", 1, None, MethodOptions(zero=ZeroOptions(keep=keep)))
    names = [str(label) for label in range(len(texts))]
    context = ScoringContext(
        request, names, [[name] for name in names], tau, lambda _: texts, lambda: None
    )
    return ZERO.prepare(context)(QueryShard(views=views))


@pytest.mark.parametrize(("count", "keep"), [(64, 0.3), (10, 0.4), (7, 0.01), (6, 1.0)])
def test_it_votes_as_its_description_says(count, keep):
    rng = np.random.default_rng(count)
    texts, views = unit(rng, 5, 12), unit(rng, 40, count, 12)
    got = scored(views, texts, keep=keep)
    expected = np.array([literal(each, texts, 20.0, keep) for each in views])
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert (got.argmax(1) == expected.argmax(1)).all()
    np.testing.assert_array_equal(scored(views[7:8], texts, keep=keep)[0], got[7])
    if keep in (0.3, 0.4):  # the numbers of votes of ties are among them, and what decides them
        assert {round(1 / row[row > 0].min()) for row in got} > {max(1, int(count * keep))}


def looks(*answers):
    """Views of three classes, each (label, how sure): (V, 4), unit rows."""
    rows = np.zeros((len(answers), 4), np.float32)
    for row, (label, sure) in zip(rows, answers, strict=True):
        row[label], row[3] = sure, math.sqrt(1 - sure**2)
    return rows


TEXTS = np.eye(3, 4, dtype=np.float32)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        # 4 of 8 are kept: a clear winner, though all others say another
        (looks(*[(1, 0.9)] * 3, (0, 0.9), *[(2, 0.5)] * 4), [1 / 4, 3 / 4, 0]),
        # 0 and 1 have two votes each: the first of the others whose answer is one of them
        (looks(*[(0, 0.9)] * 2, *[(1, 0.9)] * 2, (2, 0.8), (1, 0.7), (0, 0.6), (0, 0.6)),
         [2 / 5, 3 / 5, 0]),
        # the others in order of entropy, not of place
        (looks(*[(0, 0.9)] * 2, *[(1, 0.9)] * 2, (1, 0.5), (0, 0.6), (1, 0.5), (1, 0.5)),
         [3 / 5, 2 / 5, 0]),
        # none of the others decides: the highest mean over all views
        (looks(*[(0, 0.9)] * 2, *[(1, 0.95)] * 2, *[(2, 0.5)] * 4), [2 / 5, 3 / 5, 0]),
        # and if these are equal, too: the lowest label
        (looks(*[(1, 0.9)] * 2, *[(0, 0.9)] * 2, *[(2, 0.5)] * 4), [3 / 5, 2 / 5, 0]),
    ],
)  # fmt: skip
def test_ties(views, expected):
    got = scored(views[None], TEXTS, keep=0.5)[0]
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(literal(views, TEXTS, 20.0, 0.5), expected, atol=1e-12)


@pytest.mark.parametrize("dataset", ["imagenet-a", "pets"])
@pytest.mark.parametrize("augmix", [None, True, False])
def test_it_never_reads_augmix(dataset, augmix):
    options = MethodOptions(views=ViewsOptions(count=9, augmix=augmix, seed=3, limit=5))
    request = MethodRequest(dataset, 1, None, options)
    assert ZERO.view_set(request) == ViewSet(count=9, augmix=False, seed=3, limit=5)
    mixed = dataset == "pets" if augmix is None else augmix
    for method in ("tpt", "confident-views"):
        assert METHODS[method].view_set(request) == ViewSet(9, mixed, 3, 5)


def test_its_settings_are_the_papers():
    told = ZERO.settings(MethodRequest("x", 1, None), ZERO.variants([], [])[0])
    assert {name: (s.value, s.source) for name, s in told.items()} == {
        "count": (64, "paper"),
        "keep": (0.3, "paper"),
        "augmix": (False, "paper"),
    }
