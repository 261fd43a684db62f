"""Stored scores as the methods read them: a part of the queries at a time, decoded once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from xmore.methods.base import Scores, Stream
from xmore.store import schemas
from xmore.store.artifacts import ArtifactRef, read_rows

KEPT_BYTES = 1 << 29  # 50,000 queries of 1,000 classes are 400 MB


@dataclass(frozen=True)
class ScoredQueries:
    """Some queries with their scores, and what these alone predict."""

    ids: np.ndarray  # (Q,) int64 query_ids
    scores: Scores
    image_best: np.ndarray  # (Q,) int64 labels
    text_best: np.ndarray  # (Q,) int64, any label without captions
    covered: np.ndarray  # (Q,) bool: has captions

    @property
    def bytes(self) -> int:
        return self.scores.image.nbytes + self.scores.text.nbytes

    def only(self, which: np.ndarray, own: np.ndarray | None) -> ScoredQueries:
        """Return the queries of a (Q,) bool mask, with a method's own scores of them."""
        if which.all():
            return replace(self, scores=replace(self.scores, own=own))
        scores = Scores(self.scores.image[which], self.scores.text[which], own)
        best = (self.image_best[which], self.text_best[which], self.covered[which])
        return ScoredQueries(self.ids[which], scores, *best)

    def saying(self, own: np.ndarray) -> ScoredQueries:
        """Return the queries with a method's own scores of them, (Q, C)."""
        return replace(self, scores=replace(self.scores, own=own))


class ScoreRows:
    """The rows of one `scores` artifact; those that were read are kept for the next method.

    Memory: KEPT_BYTES and one part; queries beyond these are read again for each method.
    """

    def __init__(self, ref: ArtifactRef) -> None:
        self.ref = ref
        self._kept: dict[tuple[int, int], ScoredQueries] = {}

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) int64 query_ids."""
        return read_rows(self.ref, columns=["query_id"])["query_id"].to_numpy()

    @cached_property
    def stream(self) -> Stream:
        """The confidences of all queries."""
        table = read_rows(self.ref, columns=["image_confidence", "text_confidence"])
        # null -> NaN
        return Stream(table["image_confidence"].to_numpy(), table["text_confidence"].to_numpy())

    @cached_property
    def classes(self) -> int:
        """The number of classes."""
        return len(read_rows(self.ref, 0, 1, ["image_scores"])["image_scores"][0])

    def of(self, start: int, stop: int) -> ScoredQueries:
        """Return the queries [start, stop)."""
        found = self._kept.get((start, stop))
        if found is None:
            columns = ["query_id", "image_scores", "text_scores"]
            found = _scored(read_rows(self.ref, start, stop, columns))
            if found.bytes + sum(each.bytes for each in self._kept.values()) <= KEPT_BYTES:
                self._kept[start, stop] = found
        return found


def _scored(rows: pa.Table) -> ScoredQueries:
    image = schemas.to_matrix(rows["image_scores"])
    text = schemas.to_matrix(rows["text_scores"])
    if text.shape[1] != image.shape[1]:  # no query of this part has captions
        text = np.full(image.shape, np.nan, np.float32)
    return ScoredQueries(
        rows["query_id"].to_numpy(),
        Scores(image, text),
        image.argmax(1),
        text.argmax(1),
        ~np.isnan(text).any(1),
    )
