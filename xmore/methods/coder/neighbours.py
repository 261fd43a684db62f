"""What an image's similarities to neighbour texts say about its class (Yi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xmore.datasets.prompts import PAPERS_PROMPT
from xmore.methods.coder.texts import NeighbourTexts
from xmore.methods.scoring import class_features

CHUNK = 4096  # texts at a time while they are summed
GATHER_ROWS = 64  # queries at a time: 64 x 25 pairs x 768 float32 = 5 MB

Encode = Callable[[Sequence[str]], np.ndarray]  # N distinct texts -> (N, D) float32 unit rows


@dataclass(frozen=True)
class NeighbourFeatures:
    """The first stage's texts as features. C classes, S names and synonyms."""

    names: np.ndarray  # (S, D) float32 unit rows: each class's own, then its synonyms'
    starts: np.ndarray  # (C,) int64: a class's first row in `names`
    sums: np.ndarray  # (C, D) float32: of its attributes' and analogues' features
    counts: np.ndarray  # (C,) int64: how many these are

    def similarities(self, images: np.ndarray) -> np.ndarray:
        """The mean over descriptions and the nearest name: (Q, D) float32 unit rows -> (Q, C).

        A mean of inner products is one with the texts' sum, so that this holds Q x (S + C)
        float32, however many texts describe a class.
        """
        nearest = np.maximum.reduceat(images @ self.names.T, self.starts, axis=1)
        return (images @ self.sums.T + nearest) / (self.counts + 1).astype(np.float32)


@dataclass(frozen=True)
class VersusFeatures:
    """The second stage's texts: what tells two classes apart, both ways."""

    keys: np.ndarray  # (P,) int64, rising: c * C + o
    differences: np.ndarray  # (P, D) float32: mean feature of texts(c | o) less that of (o | c)
    classes: int  # C

    def evidence(self, images: np.ndarray, top: np.ndarray) -> np.ndarray:
        """How much more each of K classes is seen than the others: (Q, D), (Q, K) -> (Q, K).

        The mean over the other K - 1 of the inner product with the pair's difference; a pair
        without texts counts 0.
        """
        evidence = np.zeros(top.shape, np.float32)
        if not len(self.keys):
            return evidence
        for start in range(0, len(top), GATHER_ROWS):
            rows = slice(start, start + GATHER_ROWS)
            wanted = top[rows, :, None] * self.classes + top[rows, None, :]
            at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
            there = self.keys[at] == wanted
            seen = np.einsum("qcod,qd->qco", self.differences[at], images[rows])
            evidence[rows] = np.where(there, seen, 0).sum(2) / (top.shape[1] - 1)
        return evidence


def neighbours(
    texts: NeighbourTexts, names: Sequence[str], prompts: list[list[str]], encode: Encode
) -> NeighbourFeatures:
    """Encode the first stage's texts: descriptions as they stand, synonyms in the class's prompts.

    `names` and `prompts` of the C classes; a name of several prompts is their normalised mean.
    """
    called = [
        wording
        for label, synonyms in enumerate(texts.synonyms)
        for wording in (prompts[label], *(reworded(prompts[label], names[label], synonyms)))
    ]
    flat = [prompt for wording in called for prompt in wording]
    features = class_features(_encoded(flat, encode), [len(wording) for wording in called])
    sizes = np.array([1 + len(synonyms) for synonyms in texts.synonyms])
    counts = np.array([len(described) for described in texts.descriptions])
    sums = _sums(texts.descriptions, encode, features.shape[1])
    return NeighbourFeatures(features, np.cumsum(sizes) - sizes, sums, counts)


def pairs(texts: NeighbourTexts, classes: np.ndarray, encode: Encode) -> VersusFeatures:
    """Encode the second stage's texts, as they stand; `classes` are (C, D).

    A pair with texts in one direction only is missing, as in the public code: one mean alone says
    how near texts are to the image, not which of two classes they speak for.
    """
    both = sorted(pair for pair in texts.versus if pair[::-1] in texts.versus)
    listed = [texts.versus[pair] for pair in both]
    row = {pair: number for number, pair in enumerate(both)}
    counts = np.array([len(of_pair) for of_pair in listed])
    means = _sums(listed, encode, classes.shape[1]) / counts[:, None]
    reverse = [row[pair[::-1]] for pair in both]
    keys = np.array([c * len(classes) + o for c, o in both], np.int64)
    return VersusFeatures(keys, (means - means[reverse]).astype(np.float32), len(classes))


def reranked(probabilities: np.ndarray, evidence: np.ndarray, top: np.ndarray) -> np.ndarray:
    """The top's probabilities, dealt out anew by evidence: the most goes to the most evidence.

    (Q, C) float32, (Q, K), (Q, K) classes by falling probability -> (Q, C) float32. Equal evidence
    keeps the order of before. The winner is above the rest by a step of float32 at least, so that
    it stays the answer where probabilities tie.
    """
    order = np.argsort(-evidence, axis=1, kind="stable")
    dealt = np.take_along_axis(probabilities, top, 1)
    dealt[:, 0] = np.maximum(dealt[:, 0], np.nextafter(dealt[:, 1], np.float32(2)))
    answered = probabilities.copy()
    np.put_along_axis(answered, np.take_along_axis(top, order, 1), dealt, 1)
    return answered


def reworded(prompts: list[str], name: str, synonyms: Sequence[str]) -> list[list[str]]:
    """A class's prompts with each of its synonyms in the place of its name.

    A prompt may hold the name twice ("a photo of a photo."): the last one is the class's. Prompts
    without the name, such as descriptions from a file, say nothing about where a synonym goes: it
    goes into the paper's.
    """
    parts = [(before, after) for before, at, after in (p.rpartition(name) for p in prompts) if at]
    if not parts:
        parts = [tuple(PAPERS_PROMPT.split("{}"))]  # type: ignore[list-item]
    return [[f"{before}{synonym}{after}" for before, after in parts] for synonym in synonyms]


def _sums(groups: Sequence[Sequence[str]], encode: Encode, dim: int) -> np.ndarray:
    """The sum of each group's features: G groups -> (G, D) float32, summed in float64."""
    flat = [(group, text) for group, texts in enumerate(groups) for text in texts]
    sums = np.zeros((len(groups), dim))
    for start in range(0, len(flat), CHUNK):
        which, some = zip(*flat[start : start + CHUNK], strict=True)
        np.add.at(sums, list(which), _encoded(some, encode))
    return sums.astype(np.float32)


def _encoded(texts: Sequence[str], encode: Encode) -> np.ndarray:
    """The features of `texts`, in their order, each distinct one asked for once."""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return encode(list(distinct))[[distinct[text] for text in texts]]
