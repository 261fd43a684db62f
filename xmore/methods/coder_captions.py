"""`coder-captions`: CODER whose neighbour texts are the captions retrieved for the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xmore.methods.base import (
    Asked,
    Bench,
    Scorer,
    Settings,
    Shard,
    Variant,
    retrieval_settings,
)
from xmore.methods.coder import features_of

CHUNK = 4096  # captions at a time against all classes


class CoderCaptions(Scorer):
    """Ours: each caption describes the class that it is nearest to, and counts as an attribute.

    A class's score is the mean over its captions' and its own similarity to the image: a class
    without captions has its own alone, and a query without captions CLIP's answer.
    """

    name = "coder-captions"
    needs = frozenset({"query_embeddings", "captions"})

    def settings(self, asked: Asked, variant: Variant) -> Settings:
        return retrieval_settings(asked)

    def identity(self, asked: Asked) -> dict[str, Any]:
        return {}

    def prepare(self, bench: Bench) -> Callable[[Shard], np.ndarray]:
        from scipy.special import softmax

        def score(shard: Shard) -> np.ndarray:
            codes, distinct = coded(shard.captions or [])
            features = features_of(shard)
            captions = bench.texts(distinct) if distinct else features[:0]
            similarities = with_captions(features, bench.class_features, captions, codes)
            logits = np.float32(bench.tau) * similarities
            return softmax(logits.astype(np.float64), axis=1)

        return score


def coded(captions: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """Each query's captions as rows of the distinct ones: (Q, M) int64, -1 for none."""
    row: dict[str, int] = {}
    codes = np.full((len(captions), max(map(len, captions), default=0)), -1, np.int64)
    for query, of_query in enumerate(captions):
        for rank, caption in enumerate(of_query):
            codes[query, rank] = row.setdefault(caption, len(row))
    return codes, list(row)


def with_captions(
    images: np.ndarray, classes: np.ndarray, captions: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """The mean similarity to a class and its captions: (Q, C) float32.

    (Q, D) images, (C, D) classes and (U, D) captions, float32 unit rows; codes (Q, M) are rows of
    `captions`. Holds Q x C twice.
    """
    from xmore.captions import fine_similarities

    of_class = nearest(captions, classes)
    seen = fine_similarities(images, captions, codes)
    totals = images @ classes.T
    counts = np.ones(totals.shape, np.float32)
    query, rank = np.nonzero(codes >= 0)
    where = query, of_class[codes[query, rank]]
    np.add.at(totals, where, seen[query, rank])
    np.add.at(counts, where, 1)
    return totals / counts


def nearest(captions: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class of highest inner product with each caption: (U, D), (C, D) -> (U,) labels.

    Ties go to the lower label. BLAS may tell equal classes apart by a last bit, so that they are
    made one first.
    """
    _, firsts, same = np.unique(classes, axis=0, return_index=True, return_inverse=True)
    lowest = firsts[same]
    starts = range(0, len(captions), CHUNK)
    found = [(captions[i : i + CHUNK] @ classes.T).argmax(1) for i in starts]
    return lowest[np.concatenate(found)] if found else np.zeros(0, np.int64)


METHOD = CoderCaptions()
