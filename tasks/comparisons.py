"""`comparisons`: all pairs of a run's methods on the same queries, with significance tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.metrics import Scored
from tasks.predictions import by_variant
from tasks.stage import Workspace, stage
from xmore.statistics.intervals import LEVEL, RESAMPLES
from xmore.statistics.significance import POWER, correct, paired
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows

ALL = "all"  # the datasets of a run, together


@dataclass(frozen=True)
class DatasetAnswers:
    """A dataset's queries, and the predictions of all methods."""

    queries: ArtifactRef
    scored: list[Scored]


@stage("comparisons")
def comparisons(work: Workspace, datasets: list[DatasetAnswers]) -> ArtifactRef:
    """Compare each method with each one that the config names before it -> one row per pair.

    Both have the same dataset, inference model, prompt set and M (or the baseline reads no
    captions). Moreover, each method is compared with itself under each prompt set before its own.
    Pairs are compared on the queries for which both have predictions. For the families of Holm's
    correction see `_family`. Memory: one dataset's predictions under one model, one byte each.
    """
    inputs = [
        digest
        for dataset in datasets
        for digest in (dataset.queries.digest, *(s.predictions.digest for s in dataset.scored))
    ]
    names = [dataset.queries.dataset for dataset in datasets]
    params: dict[str, Any] = {"level": LEVEL, "power": POWER, "resamples": RESAMPLES}
    sets = [item.predictions.prompt_set for dataset in datasets for item in dataset.scored]
    if any(sets):  # the rows name them, which the inputs' digests do not
        params["prompt_sets"] = sets
    older = work.store.find(ArtifactKey("comparisons", ALL, params, tuple(inputs)))
    if older and _named(older) == names:
        return older
    # The rows name their dataset, which the inputs' digests do not.
    key = ArtifactKey("comparisons", ALL, params | {"datasets": names}, tuple(inputs))

    def make_part(start: int, stop: int) -> pa.Table:
        rows = [row for dataset in datasets for row in _pairs(dataset)]
        correct(rows, _family)
        schema = schemas.COMPARISONS_OF_SETS if any(sets) else schemas.COMPARISONS
        return pa.Table.from_pylist(rows, schema=schema)

    return work.store.write(key, [1], make_part)


def _named(ref: ArtifactRef) -> list[str]:
    """Return the datasets in the rows of an artifact, in their order."""
    return list(dict.fromkeys(read_rows(ref, columns=["dataset"])["dataset"].to_pylist()))


@dataclass(frozen=True)
class _Predictions:
    """The predictions of one method with one adjustment, under one prompt set and one M."""

    prompt_set: str
    method: str
    adjustment: str | None
    m: int | None
    in_stream: np.ndarray  # (N,) bool: which of the queries were in its stream
    correct: np.ndarray  # (S, N) bool, one row per order seed


def _pairs(dataset: DatasetAnswers) -> Iterator[dict[str, Any]]:
    by_model = defaultdict(list)
    for item in dataset.scored:
        by_model[item.predictions.model].append(item)
    labels = read_rows(dataset.queries, columns=["query_id", "label"])
    for model, scored in by_model.items():
        found = [each for item in scored for each in _predictions(item, labels)]
        for i, mine in enumerate(found):
            for baseline in found[:i]:
                both = mine.in_stream & baseline.in_stream
                if _comparable(mine, baseline) and both.any():
                    common = {"dataset": dataset.queries.dataset, "model": model}
                    yield common | _compare(mine, baseline, both)


def _comparable(mine: _Predictions, baseline: _Predictions) -> bool:
    if mine.prompt_set == baseline.prompt_set:
        return baseline.m in (mine.m, None)
    of_mine, of_baseline = ((each.method, each.adjustment, each.m) for each in (mine, baseline))
    return of_mine == of_baseline


def _predictions(item: Scored, labels: pa.Table) -> list[_Predictions]:
    rows = read_rows(item.predictions, columns=["query_id", "prediction"])
    in_stream = np.isin(labels["query_id"].to_numpy(), rows["query_id"].to_numpy())
    label = labels["label"].to_numpy()[in_stream]
    seeds: dict[str | None, list[np.ndarray]] = defaultdict(list)
    for variant, mine in by_variant(rows, item.run.variants):
        right = np.zeros(len(in_stream), bool)
        right[in_stream] = mine["prediction"].to_numpy() == label  # no prediction (NaN) is wrong
        seeds[variant.adjustment].append(right)
    return [
        _Predictions(
            item.predictions.prompt_set,
            item.run.method,
            adjustment,
            item.run.m,
            in_stream,
            np.stack(correct),
        )
        for adjustment, correct in seeds.items()
    ]


def _compare(mine: _Predictions, baseline: _Predictions, both: np.ndarray) -> dict[str, Any]:
    """Compare two methods on the queries in both streams; `both` is (N,) bool."""
    found = paired(mine.correct[:, both], baseline.correct[:, both])
    return {
        "method": mine.method,
        "adjustment": mine.adjustment,
        "m": mine.m,
        "baseline": baseline.method,
        "baseline_adjustment": baseline.adjustment,
        "n": int(both.sum()),
        "only_method": found.only_a,
        "only_baseline": found.only_b,
        "difference": found.difference,
        "ci_low": found.low,
        "ci_high": found.high,
        "p": found.p,
        "minimum_detectable": found.minimum_detectable,
        "prompt_set": mine.prompt_set,
        "baseline_prompt_set": baseline.prompt_set,
    }


def _family(row: dict[str, Any]) -> tuple[str | None, ...]:
    """Return the family of a row: one model and baseline, over methods, adjustments, Ms, datasets.

    Under one prompt set, the baseline is a variant; so a run of several has the p that a run of
    each has. Between two, it is the earlier prompt set: the family has all methods and later sets.
    """
    model, baseline_set = row["model"], row["baseline_prompt_set"]
    if row["prompt_set"] != baseline_set:
        return model, baseline_set
    return model, baseline_set, row["baseline"], row["baseline_adjustment"]
