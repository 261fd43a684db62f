"""Class scores from an image's similarities to neighbour texts (Yi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xmore.datasets.prompts import PAPERS_PROMPT
from xmore.methods.coder.texts import NeighbourTexts
from xmore.methods.scoring import class_features

CHUNK = 4096  # texts that are encoded and summed at a time
GATHER_ROWS = 64  # queries at a time: 64 x 25 pairs x 768 float32 = 5 MB

Encode = Callable[[Sequence[str]], np.ndarray]  # N distinct texts -> (N, D) float32 unit rows


@dataclass(frozen=True)
class NeighbourFeatures:
    """The features of the first stage's texts, for C classes and S names and synonyms."""

    names: np.ndarray  # (S, D) float32 unit rows: each class's own name, then its synonyms
    starts: np.ndarray  # (C,) int64: a class's first row in `names`
    sums: np.ndarray  # (C, D) float32: sums of its attributes' and analogues' features
    counts: np.ndarray  # (C,) int64: number of its attributes and analogues

    def similarities(self, images: np.ndarray) -> np.ndarray:
        """Return the mean over descriptions and the nearest name: (Q, D) float32 -> (Q, C).

        `images` are unit rows. The sum of inner products is the inner product with the texts' sum.
        Memory: Q x (S + C) float32, whatever the number of descriptions.
        """
        nearest = np.maximum.reduceat(images @ self.names.T, self.starts, axis=1)
        return (images @ self.sums.T + nearest) / (self.counts + 1).astype(np.float32)


@dataclass(frozen=True)
class VersusFeatures:
    """The features of the second stage's texts, which distinguish pairs of classes both ways."""

    keys: np.ndarray  # (P,) int64, ascending: c * C + o
    differences: np.ndarray  # (P, D) float32: mean features of texts(c | o) minus texts(o | c)
    classes: int  # C

    def evidence(self, images: np.ndarray, top: np.ndarray) -> np.ndarray:
        """Return the evidence for each of K classes against the others: (Q, D), (Q, K) -> (Q, K).

        The mean over the other K - 1 classes of the inner product with the pair's difference; a
        pair without texts counts as 0. `top` are int64 classes.
        """
        evidence = np.zeros(top.shape, np.float32)
        if not len(self.keys):
            return evidence
        for start in range(0, len(top), GATHER_ROWS):
            rows = slice(start, start + GATHER_ROWS)
            wanted = top[rows, :, None] * self.classes + top[rows, None, :]
            at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
            exists = self.keys[at] == wanted
            seen = np.einsum("qcod,qd->qco", self.differences[at], images[rows])
            evidence[rows] = np.where(exists, seen, 0).sum(2) / (top.shape[1] - 1)
        return evidence


def neighbours(
    texts: NeighbourTexts, names: Sequence[str], prompts: list[list[str]], encode: Encode
) -> NeighbourFeatures:
    """Encode the first stage's texts: descriptions unchanged, synonyms in the class's prompts.

    `names` and `prompts` belong to the C classes. With several prompts, the feature of a name is
    their normalised mean.
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
    """Encode the second stage's texts unchanged; `classes` are (C, D) features.

    A pair with texts in one direction only is omitted, as in the public code: one mean alone
    measures how near its texts are to the image, not which of the two classes is more likely.
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
    """Reassign the probabilities of the top classes by evidence, most to most: (Q, C) float32.

    `probabilities` are (Q, C) float32, `evidence` (Q, K), and `top` (Q, K) classes by descending
    probability. Equal evidence keeps the previous order. The winner is at least one float32 step
    above the rest, so that it stays the prediction even if probabilities tie.
    """
    order = np.argsort(-evidence, axis=1, kind="stable")
    dealt = np.take_along_axis(probabilities, top, 1)
    dealt[:, 0] = np.maximum(dealt[:, 0], np.nextafter(dealt[:, 1], np.float32(2)))
    result = probabilities.copy()
    np.put_along_axis(result, np.take_along_axis(top, order, 1), dealt, 1)
    return result


def reworded(prompts: list[str], name: str, synonyms: Sequence[str]) -> list[list[str]]:
    """Return a class's prompts for each synonym, with the synonym in place of the name.

    If a prompt contains the name twice ("a photo of a photo."), the last one is replaced. If no
    prompt contains the name, as with descriptions from a file, the paper's prompt is used.
    """
    parts = [(before, after) for before, at, after in (p.rpartition(name) for p in prompts) if at]
    if not parts:
        parts = [tuple(PAPERS_PROMPT.split("{}"))]  # type: ignore[list-item]
    return [[f"{before}{synonym}{after}" for before, after in parts] for synonym in synonyms]


def _sums(groups: Sequence[Sequence[str]], encode: Encode, dim: int) -> np.ndarray:
    """Return the sum of each group's features: G groups -> (G, D) float32, summed in float64."""
    flat = [(group, text) for group, texts in enumerate(groups) for text in texts]
    sums = np.zeros((len(groups), dim))
    for start in range(0, len(flat), CHUNK):
        which, some = zip(*flat[start : start + CHUNK], strict=True)
        np.add.at(sums, list(which), _encoded(some, encode))
    return sums.astype(np.float32)


def _encoded(texts: Sequence[str], encode: Encode) -> np.ndarray:
    """Return the features of `texts`, in their order; each distinct text is encoded once."""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    return encode(list(distinct))[[distinct[text] for text in texts]]
