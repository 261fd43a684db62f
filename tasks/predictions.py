"""`predictions`: what a method predicts for each query. It reads scores, never a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.score_rows import ScoredQueries, ScoreRows
from tasks.stage import Workspace, stage
from tasks.streams import Streams
from xmore.config.benchmark import BenchmarkConfig
from xmore.files.errors import DatasetError
from xmore.methods.base import (
    Method,
    MethodRequest,
    RunMemory,
    Scores,
    Stream,
    Variant,
    Weights,
)
from xmore.methods.guard import check_scores
from xmore.methods.ordered import OrderedScorer
from xmore.methods.ranking import best_labels
from xmore.methods.registry import MethodRef
from xmore.methods.source import method_key, source_of
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows

TOP = 5
BLOCK = 64  # queries: 64 x 1,000 float64 = 0.5 MB


@dataclass(frozen=True)
class MethodRun:
    """A method, and how a config wants it to run."""

    ref: MethodRef
    request: MethodRequest
    adjustments: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def method(self) -> str:
        """The method's own name."""
        return self.ref.method.name

    @property
    def m(self) -> int | None:
        """Number of captions per query; None if the method reads none."""
        return self.request.m

    @property
    def name(self) -> str:
        """The method's name, with M if it reads captions."""
        return self.method if self.m is None else f"{self.method}, M={self.m}"

    @property
    def variants(self) -> list[Variant]:
        return self.ref.method.variants(self.adjustments, self.seeds)


def method_runs(
    config: BenchmarkConfig,
    methods: Sequence[MethodRef],
    dataset: str,
    memory: RunMemory | None = None,
) -> list[MethodRun]:
    """Return each of the config's methods with each M, or once if it reads no captions.

    Without the run's memory a method may not be able to compute scores, but can be measured.
    """
    k, options, cache = config.retrieval.candidates, config.options, config.results / "cache"
    return [
        MethodRun(
            ref,
            MethodRequest(dataset, k, m, options, cache, memory),
            tuple(config.adjustments),
            tuple(config.seeds),
        )
        for ref in methods
        for m in (config.retrieval.captions if ref.method.reads_captions else [None])
    ]


@dataclass(frozen=True)
class ScoreSource:
    """The scores that a method combines, or its own."""

    scores: ArtifactRef
    own: ArtifactRef | None = None  # its `method_scores`; None: it combines image and text scores
    left_out: ArtifactRef | None = None  # `leaks` whose queries are not in the stream
    rows: ScoreRows | None = None  # of `scores`, which several methods share


@stage("predictions {source.scores.dataset}, {source.scores.model}, {run.name}{work.under}")
def predictions(work: Workspace, source: ScoreSource, run: MethodRun) -> ArtifactRef:
    """Read `scores`, or the method's own -> one row per query and variant of the method.

    Excluded queries, and queries for which the method has no scores, are not in the stream: they
    get no row and change no other query's weights. Raises DatasetError if no query is left.

    Memory: the confidences of the complete stream (16 bytes per query and variant), one part, and
    what `source.rows` keeps.
    """
    method, scores = run.ref.method, source.scores
    params = {
        "method": method_key(method),
        "model": scores.model,
        "m": run.m,
        "variants": [[v.adjustment, v.seed] for v in run.variants],
    }
    inputs = tuple(ref.digest for ref in (scores, source.own, source.left_out) if ref)
    made_of = source_of(method)
    key = ArtifactKey("predictions", scores.dataset, params, inputs, scores.model, made_of)
    found = work.store.find(key)
    if found:
        return found

    rows = source.rows or ScoreRows(scores)
    own = _Own(source.own) if source.own else None
    kept = _kept(source, rows.ids, own)
    stream = Stream(rows.stream.image_confidence[kept], rows.stream.text_confidence[kept])
    weights = [(variant, method.weights(stream, variant)) for variant in run.variants]

    streams = _streams(run, own, rows.ids[kept]) if own else None

    def make_part(start: int, stop: int) -> pa.Table:
        in_stream = kept[start:stop]
        if not in_stream.any():
            return schemas.PREDICTIONS.empty_table()
        span = slice(*(int(kept[:end].sum()) for end in (start, stop)))
        mine = own.of(rows.ids[start:stop][in_stream]) if own and not streams else None
        queries = rows.of(start, stop).only(in_stream, mine)
        weighted = [_Weighted(method, v, w and w.rows(span.start, span.stop)) for v, w in weights]
        tables = _tables(queries, weighted, streams, span)
        constants = {"method": method.name, "model": scores.model, "m": run.m}
        return _merge(tables, constants)

    row_bytes = 8 * rows.classes + 150 * len(run.variants)
    return work.store.write(
        key, split_rows(scores.rows, work.execution.part_rows, row_bytes), make_part
    )


def by_variant(rows: pa.Table, variants: list[Variant]) -> Iterator[tuple[Variant, pa.Table]]:
    """Yield each variant's rows of a method's `predictions`, in the order of query_id."""
    for i, variant in enumerate(variants):  # a query's variants are adjacent rows, in order
        yield variant, rows.take(pa.array(np.arange(i, rows.num_rows, len(variants))))


@dataclass(frozen=True)
class _Weighted:
    """A method, and the weights of some queries with which one of its variants combines scores."""

    method: Method
    variant: Variant
    weights: Weights | None

    def class_scores(self, scores: Scores) -> Iterator[np.ndarray]:
        """Yield (<= BLOCK, C) float64: so few queries stay in the processor's cache."""
        for start in range(0, len(scores.image), BLOCK):
            part = slice(start, start + BLOCK)
            own = None if scores.own is None else scores.own[part]
            block = Scores(scores.image[part], scores.text[part], own)
            weights = self.weights and self.weights.rows(start, start + BLOCK)
            found = self.method.class_scores(block, weights)
            covered = ~np.isnan(block.text).any(1) | (not self.method.reads_captions)
            check_scores(self.method, found, (len(covered), block.image.shape[1]), covered)
            yield found.astype(np.float64, copy=False)


@dataclass(frozen=True)
class _Own:
    """A method's own scores, for some of the queries."""

    ref: ArtifactRef

    @cached_property
    def ids(self) -> np.ndarray:
        """(n,) ascending query_ids."""
        return read_rows(self.ref, columns=["query_id"])["query_id"].to_numpy()

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Read the scores of (Q,) ascending query_ids, all of which exist -> (Q, C) float32."""
        at = np.searchsorted(self.ids, ids)
        rows = read_rows(self.ref, int(at[0]), int(at[-1]) + 1, ["class_scores"])
        return schemas.to_matrix(rows["class_scores"].take(pa.array(at - at[0])))


def _kept(source: ScoreSource, ids: np.ndarray, own: _Own | None) -> np.ndarray:
    """Return (N,) bool: which queries are in the stream."""
    kept = np.isin(ids, own.ids) if own else np.ones(len(ids), bool)
    if source.left_out is None:
        return kept
    leaked = read_rows(source.left_out, columns=["query_id"])["query_id"].to_numpy()
    kept &= ~np.isin(ids, leaked)
    if not kept.any():
        raise DatasetError(
            f"{source.scores.dataset}: every test image is in the memory, so none is left. Raise "
            "`leaks.threshold`, or set `leaks.exclude: false`."
        )
    return kept


def _streams(run: MethodRun, own: _Own, ids: np.ndarray) -> Streams | None:
    """Follow the orders of an ordered method over the query_ids in the stream; None for others."""
    method = run.ref.method
    if not isinstance(method, OrderedScorer):
        return None
    return Streams(method, run.request, run.variants, own.ref, np.searchsorted(own.ids, ids))


def _tables(
    queries: ScoredQueries, variants: list[_Weighted], streams: Streams | None, span: slice
) -> list[pa.Table]:
    """Return one table per variant of the queries that are at `span` in the stream."""
    if streams is None:
        return [
            _table(queries, each, each.weights.step if each.weights else None) for each in variants
        ]
    answer = streams.of(span.start, span.stop)
    return [
        _table(queries.saying(answer(each.variant)), each, streams.steps[each.variant][span])
        for each in variants
    ]


def _table(queries: ScoredQueries, weighted: _Weighted, step: np.ndarray | None) -> pa.Table:
    blocks = []
    for scores in weighted.class_scores(queries.scores):
        ranked = best_labels(scores, TOP)
        probability = scores[np.arange(len(ranked)), ranked[:, 0]]
        blocks.append((ranked, probability, ~np.isnan(scores).any(1)))
    ranked, probability, predicted = (np.concatenate(each) for each in zip(*blocks, strict=True))
    variant, weights, n = weighted.variant, weighted.weights, len(ranked)
    columns: dict[str, Any] = {
        "query_id": queries.ids,
        "adjustment": pa.array([variant.adjustment] * n, pa.string()),
        "seed": pa.array([variant.seed] * n, pa.int64()),
        "step": pa.nulls(n, pa.int64()) if step is None else step,
        "image_weight": weights.image if weights else pa.nulls(n, pa.float64()),
        "text_weight": weights.text if weights else pa.nulls(n, pa.float64()),
        "prediction": pa.array(ranked[:, 0], pa.int32(), mask=~predicted),
        "probability": pa.array(probability, mask=~predicted),
        "image_prediction": pa.array(queries.image_best, pa.int32()),
        "text_prediction": pa.array(queries.text_best, pa.int32(), mask=~queries.covered),
        "top5": schemas.lists(
            ranked, np.repeat(predicted[:, None], ranked.shape[1], 1), pa.int32()
        ),
    }
    return pa.table(columns)


def _merge(tables: list[pa.Table], constants: dict[str, Any]) -> pa.Table:
    """Merge one table per variant into rows by query_id, then in the variants' order."""
    table = pa.concat_tables(tables)
    n, variants = tables[0].num_rows, len(tables)
    order = np.arange(n * variants).reshape(variants, n).T.reshape(-1)
    table = table.take(pa.array(order))
    for name, value in constants.items():
        column = pa.array([value] * len(table), schemas.PREDICTIONS.field(name).type)
        table = table.append_column(name, column)
    return table.select(schemas.PREDICTIONS.names).cast(schemas.PREDICTIONS).combine_chunks()
