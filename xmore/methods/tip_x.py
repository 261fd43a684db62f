"""`tip-x`: memory images found by the classes' texts as keys (Udandarao et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)
from xmore.methods.products import inner_products, padded

if TYPE_CHECKING:
    from xmore.models.spec import ModelCard

PER_CLASS = 16  # keys
ALPHA, BETA, GAMMA = 1.17, 1.0, 1.0  # the starts of the public codes' searches
TEMPERATURE = 0.5  # of the class distributions that are compared, in the public code
BLOCK = 256  # queries; with 16,000 keys three arrays of 16 MB


class TipX(Scorer):
    """SuS-X's zero-shot form: keys are the memory images nearest to each class's text (SuS-LC).

    A key counts for its class by its similarity to the image, as in Tip-Adapter, and by the KL
    divergence of their class distributions. That is scaled to the range of the similarities for
    each image alone, so that no image changes another's scores. Without any key it is CLIP.
    """

    name = "tip-x"
    version = 1
    needs = frozenset({"query_embeddings", "leaks"})

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        self.identity(request)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        values = {"keys": PER_CLASS, "alpha": ALPHA, "beta": BETA, "gamma": GAMMA}
        return {name: Setting(value, "fixed") for name, value in values.items()}

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        from xmore.methods.memories import identity_of, memory_of

        with memory_of(request, self.name) as memory:
            return identity_of(memory)

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.memories import ImagesByText, memory_of

        classes = context.class_features
        with memory_of(context.request, self.name) as memory:
            images = ImagesByText(memory, context.leaked())
            ids = images(classes, PER_CLASS)
            label, _ = np.nonzero(ids >= 0)
            keys = images.embeddings(ids[ids >= 0])
        cache = KeyCache(keys, label, classes)

        def score(shard: QueryShard) -> np.ndarray:
            return cache.scores(needed(shard.features), context.tau)

        return score


class KeyCache:
    """The keys and their classes. Memory: the keys, padded, and 16 bytes each."""

    def __init__(self, keys: np.ndarray, label: np.ndarray, classes: np.ndarray) -> None:
        """Take (K, D) float32 keys, the (K,) ascending labels of theirs, and (C, D) classes."""
        self._keys, self._count = padded(keys), len(keys)
        self._present, self._starts = np.unique(label, return_index=True)
        self._classes = classes.astype(np.float64)
        self._mean = self._classes.mean(0)
        own = _log_sum(keys, self._classes) - keys @ self._mean / TEMPERATURE
        self._own = (own - own.mean() if len(own) else own).astype(np.float32)

    def scores(self, features: np.ndarray, tau: float) -> np.ndarray:
        """Return the class probabilities: (N, D) float32 unit rows -> (N, C) float64.

        Memory: three arrays of BLOCK rows of K numbers, and the result.
        """
        from scipy.special import softmax

        starts = range(0, len(features), BLOCK)
        logits = [self._logits(features[start : start + BLOCK], tau) for start in starts]
        return softmax(np.concatenate(logits), axis=1)

    def _logits(self, features: np.ndarray, tau: float) -> np.ndarray:
        similarities = inner_products(features.astype(np.float64), self._classes)
        logits = tau * similarities
        if self._count:
            logits[:, self._present] += self._added(features, similarities)
        return logits

    def _added(self, features: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        near = self._to_keys(features)
        least, most = near.min(1, keepdims=True), near.max(1, keepdims=True)
        far = self._divergences(similarities)
        far -= far.min(1, keepdims=True)
        widest = far.max(1, keepdims=True)
        far *= np.divide(GAMMA * (most - least), widest, out=widest * 0, where=widest > 0)
        near -= 1
        near *= BETA
        np.exp(near, out=near)
        near *= ALPHA
        near -= far
        near -= GAMMA * least
        return np.add.reduceat(near, self._starts, axis=1, dtype=np.float64)

    def _divergences(self, similarities: np.ndarray) -> np.ndarray:
        """Return KL(S(f) || S(key)) less what is the same for all keys: (B, C) -> (B, K) float32.

        With z = x W' / TEMPERATURE and S = softmax(z), KL = sum S(f) log S(f) - <S(f), z(key)> +
        log sum exp z(key). The first term is the same for all keys, and <S(f), z(key)> is an inner
        product with the key. S is nearly uniform: what the uniform distribution would give is part
        of `_own`, in float64, so that float32 is exact enough for the rest.
        """
        from scipy.special import softmax

        spread = softmax(similarities / TEMPERATURE, axis=1)
        towards = (inner_products(spread, self._classes.T) - self._mean) / TEMPERATURE
        far = self._to_keys(towards.astype(np.float32))
        np.subtract(self._own, far, out=far)
        return far

    def _to_keys(self, rows: np.ndarray) -> np.ndarray:
        return inner_products(rows, self._keys)[:, : self._count]


def _log_sum(keys: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return log sum exp over classes of z(key): (K, D), (C, D) -> (K,) float64, in blocks."""
    from scipy.special import logsumexp

    found = np.empty(len(keys))
    for start in range(0, len(keys), BLOCK):
        some = slice(start, start + BLOCK)
        found[some] = logsumexp(keys[some] @ classes.T / TEMPERATURE, axis=1)
    return found


METHOD = TipX()
