"""`retrieval_metrics` and `retrieval_comparisons`: recall of every model, and their differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.comparisons import ALL
from tasks.stage import Workspace, stage
from xmore.results.ranks import DIRECTIONS, KS, compare_found, recall_row
from xmore.statistics.intervals import LEVEL, RESAMPLES
from xmore.statistics.significance import correct
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows


@stage("retrieval_metrics {ranks[0].dataset}")
def retrieval_metrics(work: Workspace, ranks: list[ArtifactRef]) -> ArtifactRef:
    """Read the `ranks` of all models on a dataset -> one row per model, direction and k.

    Memory: one model's ranks, 40 bytes per image and caption.
    """
    params = {"k": KS, "level": LEVEL, "resamples": RESAMPLES}
    params |= {"models": [ref.model for ref in ranks]}  # the rows name them
    key = ArtifactKey("retrieval_metrics", ranks[0].dataset, params, _digests(ranks))

    def make_part(start: int, stop: int) -> pa.Table:
        rows = [row for ref in ranks for row in _metrics(ref)]
        return pa.Table.from_pylist(rows, schema=schemas.RETRIEVAL_METRICS)

    return work.store.write(key, [1], make_part)


@stage("retrieval_comparisons")
def retrieval_comparisons(work: Workspace, ranks: list[ArtifactRef]) -> ArtifactRef:
    """Compare each model with each one that the config names before it, by direction and k.

    `ranks` are those of all models on all datasets. Holm's correction is over all rows of one
    baseline model. Memory: one dataset's ranks, 16 bytes per image, caption and model.
    """
    named = [(ref.dataset, ref.model) for ref in ranks]  # as the rows do
    params = {"k": KS, "level": LEVEL, "resamples": RESAMPLES, "of": named}
    key = ArtifactKey("retrieval_comparisons", ALL, params, _digests(ranks))

    def make_part(start: int, stop: int) -> pa.Table:
        by_dataset = defaultdict(list)
        for ref in ranks:
            by_dataset[ref.dataset].append(ref)
        rows = [row for refs in by_dataset.values() for row in _pairs(refs)]
        correct(rows, itemgetter("baseline_model"))
        return pa.Table.from_pylist(rows, schema=schemas.RETRIEVAL_COMPARISONS)

    return work.store.write(key, [1], make_part)


def _digests(refs: list[ArtifactRef]) -> tuple[str, ...]:
    return tuple(ref.digest for ref in refs)


def _read(ref: ArtifactRef, direction: str) -> pa.Table:
    rows = read_rows(ref, columns=["direction", "query_id", "rank", "tied"])
    return rows.filter(pc.field("direction") == direction)


def _metrics(ref: ArtifactRef) -> Iterator[dict[str, Any]]:
    for direction in DIRECTIONS:
        rows = _read(ref, direction)
        rank, image = rows["rank"].to_numpy(), rows["query_id"].to_numpy()
        tied = int(np.count_nonzero(rows["tied"].to_numpy()))
        common = {"model": ref.model, "direction": direction, "n_tied": tied}
        for k in KS:
            yield common | {"k": k} | recall_row(rank, image, k)


def _pairs(refs: list[ArtifactRef]) -> Iterator[dict[str, Any]]:
    """Yield the comparisons on one dataset, of whose images and captions all `refs` have ranks."""
    for direction in DIRECTIONS:
        tables = [_read(ref, direction) for ref in refs]
        image = tables[0]["query_id"].to_numpy()
        ranks = [table["rank"].to_numpy() for table in tables]
        for k, i, j in product(KS, range(len(refs)), range(len(refs))):
            if j < i:
                yield {
                    "dataset": refs[0].dataset,
                    "direction": direction,
                    "k": k,
                    "model": refs[i].model,
                    "baseline_model": refs[j].model,
                } | compare_found(ranks[i] <= k, ranks[j] <= k, image)
