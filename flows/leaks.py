"""Gather what `xmore leaks` shows: test images in the memory, accuracy with and without them.

The stages themselves compute the accuracies. The accuracy on a stream of clean queries alone is
the accuracy of a run with `leaks.exclude`, whose stream never held the leaked ones. Runs share
the artifacts that they have in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.leaks import leaks
from tasks.metrics import Scored, metrics
from tasks.predictions import ScoreSource, method_runs, predictions
from tasks.stage import Workspace
from xmore.config.benchmark import BenchmarkConfig
from xmore.files.errors import RunError
from xmore.memory.leaks import SAME, binds_bytes
from xmore.memory.rows import captions_of, places_of
from xmore.memory.snapshot import Snapshot
from xmore.methods.base import under, variant_name
from xmore.methods.registry import method_refs
from xmore.results.leaks import SHOWN, Accuracy, Pair, Report
from xmore.results.runs import Run, config_of
from xmore.store.artifacts import ArtifactRef, read_rows
from xmore.store.checks import read_manifest

Which = tuple[str, str, int | None]  # model, method with its adjustment, M


def leak_reports(run: Run, snapshot: Snapshot, threshold: float | None) -> list[Report]:
    """Return one report per dataset of a completed run; `threshold` replaces the run's own.

    Raises RunError if the run is not complete. Memory: as the stages, and SHOWN pairs.
    """
    if run.status != "completed":
        raise RunError(f"run {run.name} is {run.status}. Name a completed run.")
    config = config_of(run)
    config = config.model_copy(update={"results": run.path.parents[1]})
    used = config.leaks.threshold if threshold is None else threshold
    searched = {ref.dataset for ref in run.artifacts if ref.stage == "candidates"}
    by_dataset: dict[str, list[ArtifactRef]] = defaultdict(list)
    for ref in run.artifacts:
        if ref.dataset in searched:
            by_dataset[ref.dataset].append(ref)
    return [_report(config, refs, snapshot, used) for refs in by_dataset.values()]


def _report(
    config: BenchmarkConfig, refs: list[ArtifactRef], snapshot: Snapshot, threshold: float
) -> Report:
    work = Workspace(config.results, config.execution)
    queries, found = (_only(refs, stage) for stage in ("queries", "candidates"))
    leaked = leaks(work, queries, found, snapshot, threshold)
    pairs = read_rows(leaked, columns=["query_id", "kind"])
    count = pc.count_distinct(pairs["query_id"]).as_py()
    same = pc.count_distinct(pairs.filter(pc.field("kind") == SAME)["query_id"]).as_py()
    return Report(
        dataset=queries.dataset,
        space=str(found.model),
        threshold=threshold,
        n=queries.rows,
        same=same,
        told=binds_bytes(snapshot),
        near=count - same,
        pairs=_pairs(queries, leaked, snapshot),
        accuracies=_accuracies(config, refs, leaked, count) if count else [],
    )


def _only(refs: list[ArtifactRef], stage: str) -> ArtifactRef:
    return next(ref for ref in refs if ref.stage == stage)


def _pairs(queries: ArtifactRef, leaked: ArtifactRef, snapshot: Snapshot) -> list[Pair]:
    best_first = [("kind", "descending"), ("similarity", "descending"), ("memory_id", "ascending")]
    table = read_rows(leaked).sort_by(best_first)
    _, first, count = np.unique(table["query_id"].to_numpy(), return_index=True, return_counts=True)
    order = first.argsort()[:SHOWN]
    rows = table.take(pa.array(first[order]))
    images = read_rows(queries, columns=["query_id", "uri", "class_name"])
    found = pc.index_in(rows["query_id"], value_set=images["query_id"].combine_chunks())
    ids = rows["memory_id"].to_numpy()
    columns = zip(
        rows.select(["query_id", "memory_id", "kind", "similarity"]).to_pylist(),
        images.take(found).select(["uri", "class_name"]).to_pylist(),
        captions_of(snapshot, ids).to_pylist(),
        places_of(snapshot, ids),
        (count[order] - 1).tolist(),
        strict=True,
    )
    return [
        Pair(**row, **image, caption=caption, place=place, others=others)
        for row, image, caption, place, others in columns
    ]


def _accuracies(
    config: BenchmarkConfig, refs: list[ArtifactRef], leaked: ArtifactRef, count: int
) -> list[Accuracy]:
    """Return every method's accuracy on all queries, on the clean ones, and on a clean stream."""
    queries = _only(refs, "queries")
    sets = dict.fromkeys(ref.prompt_set for ref in refs if ref.stage == "scores")
    found = []
    for name in sets:
        mine = [ref for ref in refs if ref.prompt_set in ("", name)]
        for row in _under_prompts(config, mine, queries, leaked, count):
            found.append(replace(row, method=under(row.method, name)))
    return found


def _under_prompts(
    config: BenchmarkConfig,
    refs: list[ArtifactRef],
    queries: ArtifactRef,
    leaked: ArtifactRef,
    count: int,
) -> list[Accuracy]:
    """Return the accuracies under one prompt set, of whose artifacts `refs` are."""
    scored = _scored(config, refs, None)
    everything = _top1(config, refs, scored)
    if count == queries.rows:
        return [Accuracy(*which, top1, None, None) for which, top1 in everything.items()]
    alone = _top1(config, refs, _scored(config, refs, leaked))
    counted = {
        which: top1
        for item in scored
        for which, top1 in _top1_without(item, queries, leaked).items()
    }
    return [
        Accuracy(*which, top1, counted[which], alone[which]) for which, top1 in everything.items()
    ]


def _scored(
    config: BenchmarkConfig, refs: list[ArtifactRef], left_out: ArtifactRef | None
) -> list[Scored]:
    """Return the predictions of every method; computes those that do not exist yet."""
    work = Workspace(config.results, config.execution)
    scored = []
    for model in config.roles.inference:
        by_m = _by_params(refs, "scores", model, lambda params: params["m"])
        own = _by_params(refs, "method_scores", model, lambda p: (p["method"][0], p.get("m")))
        dataset = _only(refs, "queries").dataset
        for run in method_runs(config, method_refs(config.methods), dataset):
            ref = by_m[run.m or next(iter(by_m))]
            source = ScoreSource(ref, own.get((run.method, run.m)), left_out)
            scored.append(Scored(run, ref, predictions(work, source, run)))
    return scored


def _by_params(
    refs: list[ArtifactRef], stage: str, model: str, which: Callable[[dict[str, Any]], Any]
) -> dict[Any, ArtifactRef]:
    """Return a stage's artifacts under one model, keyed by their manifests' parameters."""
    return {
        which(read_manifest(Path(ref.path))["params"]): ref
        for ref in refs
        if ref.stage == stage and ref.model == model
    }


def _top1(
    config: BenchmarkConfig, refs: list[ArtifactRef], scored: list[Scored]
) -> dict[Which, float]:
    work = Workspace(config.results, config.execution)
    table = read_rows(metrics(work, _only(refs, "queries"), _only(refs, "classes"), scored))
    seeds = defaultdict(list)
    for row in table.to_pylist():
        seeds[_which(row["model"], row["method"], row["adjustment"], row["m"])].append(row["top1"])
    return {which: mean(values) for which, values in seeds.items()}


def _top1_without(item: Scored, queries: ArtifactRef, leaked: ArtifactRef) -> dict[Which, float]:
    """Return the accuracy of a method's existing predictions, without those of leaked queries."""
    rows = read_rows(item.predictions, columns=["query_id", "adjustment", "prediction"])
    gone = read_rows(leaked, columns=["query_id"])["query_id"].combine_chunks()
    rows = rows.filter(pc.invert(pc.is_in(rows["query_id"], value_set=gone)))
    labels = read_rows(queries, columns=["query_id", "label"])
    found = pc.index_in(rows["query_id"], value_set=labels["query_id"].combine_chunks())
    correct = pc.equal(rows["prediction"], labels["label"].take(found)).fill_null(False)
    shares = rows.append_column("correct", correct.cast(pa.int8())).group_by("adjustment")
    return {
        _which(item.predictions.model, item.run.method, row["adjustment"], item.run.m): row[
            "correct_mean"
        ]
        for row in shares.aggregate([("correct", "mean")]).to_pylist()
    }


def _which(model: str | None, method: str, adjustment: str | None, m: int | None) -> Which:
    return str(model), variant_name(method, adjustment), m
