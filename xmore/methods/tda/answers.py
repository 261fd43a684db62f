"""TDA's scores: those of the image, moved by the items that the caches hold at its step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xmore.methods.ordered import Stream
from xmore.methods.tda.caches import Held, held

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

POSITIVE_SIZE, NEGATIVE_SIZE = 3, 2  # items per class
UNSURE = (0.2, 0.5)  # entropy / log2(C) of what is offered to the negative cache
BLOCK = 64  # queries at a time, always as many: the same last bits however queries are grouped


@dataclass(frozen=True)
class Weighting:
    """How strongly a cache moves scores: alpha exp(-beta (1 - similarity))."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class Answers:
    """Answers queries of a stream, in any order.

    Memory: the features of the U items ever held (D float32 each; at most 2 N, in a random order
    of N queries some C (5 + 5 log(N / C))), and BLOCK x (U + C) numbers.
    """

    positive: Held
    negative: Held
    positive_keys: np.ndarray  # (U, D) float32
    negative_keys: np.ndarray
    near: csr_matrix  # (U, C) float32: 1 for the classes that an item of the negative cache may be
    moved_by: tuple[Weighting, Weighting]

    def __call__(
        self, steps: np.ndarray, class_scores: np.ndarray, features: np.ndarray
    ) -> np.ndarray:
        """Return (Q, C) float64 probabilities for queries at (Q,) steps."""
        from scipy.special import softmax

        with np.errstate(divide="ignore"):  # logits, up to a constant; what is 0 stays 0
            logits = np.log(class_scores.astype(np.float64))
        for start in range(0, len(steps), BLOCK):
            rows = slice(start, start + BLOCK)
            block = np.zeros((BLOCK, features.shape[1]), np.float32)
            block[: len(steps[rows])] = features[rows]
            self._move(logits[rows], block, steps[rows])
        return softmax(logits, axis=1)

    def _move(self, logits: np.ndarray, features: np.ndarray, steps: np.ndarray) -> None:
        """Move the logits (n, C) of n queries in place; `features` has BLOCK rows, n of them."""
        towards, away = self.moved_by
        if len(self.positive.query):
            affinity = _affinity(features, self.positive_keys, towards.beta)[: len(steps)]
            affinity *= self.positive.at(steps)
            labels, starts = np.unique(self.positive.label, return_index=True)
            logits[:, labels] += towards.alpha * np.add.reduceat(affinity, starts, axis=1)
        if len(self.negative.query):
            affinity = _affinity(features, self.negative_keys, away.beta)[: len(steps)]
            affinity *= self.negative.at(steps)
            logits -= away.alpha * (self.near.T @ np.ascontiguousarray(affinity.T)).T


def follow(stream: Stream, order: np.ndarray, moved_by: tuple[Weighting, Weighting]) -> Answers:
    """Pass over a stream once, and return what answers its queries."""
    from scipy.sparse import csr_matrix

    share = stream.entropy / np.log2(stream.classes)  # nats over log2, as the public code has it
    unsure = (UNSURE[0] < share) & (share < UNSURE[1])
    told = (stream.prediction, stream.entropy)
    positive = held(*told, np.ones(len(order), bool), order, POSITIVE_SIZE)
    negative = held(*told, unsure, order, NEGATIVE_SIZE)
    labels, counts = stream.near(negative.query)
    ends = np.concatenate([[0], np.cumsum(counts)])
    near = csr_matrix(
        (np.ones(len(labels), np.float32), labels, ends), (len(counts), stream.classes)
    )
    keys = (stream.features(positive.query), stream.features(negative.query))
    return Answers(positive, negative, *keys, near, moved_by)


def _affinity(features: np.ndarray, keys: np.ndarray, beta: float) -> np.ndarray:
    """Return exp(-beta (1 - <v, key>)), (BLOCK, U) float32."""
    similarity = features @ keys.T
    similarity -= 1
    similarity *= np.float32(beta)
    return np.exp(similarity, out=similarity)
