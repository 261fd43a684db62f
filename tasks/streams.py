"""An ordered method's evidence, which `method_scores` stores, and its answers in each order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from xmore.methods.adjust import steps_of, stream_order
from xmore.methods.base import MethodRequest, Variant
from xmore.methods.ordered import Evidence, OrderedScorer, Stream
from xmore.store import schemas
from xmore.store.artifacts import ArtifactRef, read_rows

CHUNK = 1024  # rows that are read at a time


def evidence_table(ids: np.ndarray, method: str, found: Evidence) -> pa.Table:
    """Return the rows of `method_scores` for Q ascending query_ids."""
    classes = np.broadcast_to(np.arange(found.near.shape[1]), found.near.shape)
    columns = {
        "query_id": ids,
        "method": [method] * len(ids),
        "class_scores": schemas.matrix_lists(found.class_scores.astype(np.float32)),
        "prediction": found.class_scores.argmax(1),
        "entropy": found.entropy,
        "features": schemas.matrix_lists(found.features),
        "near": schemas.lists(classes, found.near, pa.int32()),
    }
    return pa.table(columns).cast(schemas.EVIDENCE)


class Streams:
    """The orders of a method's variants over the queries that are in the stream.

    Memory: 24 bytes per query, 8 more per order, and what the method's `follow` keeps of an order.
    """

    def __init__(
        self,
        method: OrderedScorer,
        request: MethodRequest,
        variants: Sequence[Variant],
        own: ArtifactRef,
        rows: np.ndarray,
    ) -> None:
        """`rows` (n,) are the ascending rows of `own` that are in the stream."""
        self._own, self._rows = own, rows
        told = read_rows(own, columns=["prediction", "entropy"]).take(pa.array(rows))
        classes = len(read_rows(own, 0, 1, ["class_scores"])["class_scores"][0])
        stream = Stream(
            told["prediction"].to_numpy().astype(np.int64),
            told["entropy"].to_numpy(),
            classes,
            features=lambda at: schemas.to_matrix(self._some("features", at)),
            near=lambda at: schemas.to_ragged(self._some("near", at)),
        )
        self.steps: dict[Variant, np.ndarray] = {}  # (n,) int64, from 1
        self._answer: dict[Variant, Callable[..., np.ndarray]] = {}
        for variant in variants:
            order = stream_order(len(rows), variant.seed)
            self.steps[variant] = steps_of(order)
            self._answer[variant] = method.follow(stream, order, request)

    def of(self, start: int, stop: int) -> Callable[[Variant], np.ndarray]:
        """Return what answers the queries [start, stop), by query_id: (Q, C) float64."""
        rows = self._rows[start:stop]
        first = int(rows[0])
        table = read_rows(self._own, first, int(rows[-1]) + 1, ["class_scores", "features"])
        table = table.take(pa.array(rows - first))
        scores, features = (schemas.to_matrix(column) for column in table.columns)

        def answer(variant: Variant) -> np.ndarray:
            return self._answer[variant](self.steps[variant][start:stop], scores, features)

        return answer

    def _some(self, column: str, at: np.ndarray) -> pa.ChunkedArray:
        """Read a column for (k,) positions in the stream, in any order."""
        wanted, back = np.unique(self._rows[at], return_inverse=True)
        tables = [read_rows(self._own, 0, 1, [column]).slice(0, 0)]
        for start in range(0, self._own.rows, CHUNK):
            here = wanted[(wanted >= start) & (wanted < start + CHUNK)]
            if len(here):
                table = read_rows(self._own, start, start + CHUNK, [column])
                tables.append(table.take(pa.array(here - start)))
        return pa.concat_tables(tables)[column].take(pa.array(back))
