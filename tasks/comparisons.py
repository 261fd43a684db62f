"""`comparisons`: every two methods of a run on the same queries, and what of it is chance."""

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
from xmore.statistics.significance import POWER, holm, paired
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows

ALL = "all"  # the datasets of a run, together


@dataclass(frozen=True)
class DatasetAnswers:
    """A dataset's queries, and all that was answered to them."""

    queries: ArtifactRef
    scored: list[Scored]


@stage("comparisons")
def comparisons(work: Workspace, judged: list[DatasetAnswers]) -> ArtifactRef:
    """Set each method beside each that the config names before it -> a row a pair.

    Same dataset, inference model and M, on the queries that both were asked. Holm's correction is
    over all rows of one model and baseline: methods, adjustments, Ms and datasets. Holds one
    dataset's answers under one model, a byte for each.
    """
    inputs = [
        digest
        for dataset in judged
        for digest in (dataset.queries.digest, *(s.predictions.digest for s in dataset.scored))
    ]
    params = {"level": LEVEL, "power": POWER, "resamples": RESAMPLES}
    key = ArtifactKey("comparisons", ALL, params, tuple(inputs))

    def make_part(start: int, stop: int) -> pa.Table:
        rows = [row for dataset in judged for row in _pairs(dataset)]
        _correct_for_number(rows)
        return pa.Table.from_pylist(rows, schema=schemas.COMPARISONS)

    return work.store.write(key, [1], make_part)


@dataclass(frozen=True)
class _Answers:
    """One method with one adjustment, under one M."""

    method: str
    adjustment: str | None
    m: int | None
    answered: np.ndarray  # (N,) bool: which of the queries were in its stream
    correct: np.ndarray  # (S, N) bool, a row an order seed


def _pairs(dataset: DatasetAnswers) -> Iterator[dict[str, Any]]:
    by_model = defaultdict(list)
    for item in dataset.scored:
        by_model[item.predictions.model].append(item)
    labels = read_rows(dataset.queries, columns=["query_id", "label"])
    for model, scored in by_model.items():
        answers = [each for item in scored for each in _answers(item, labels)]
        for i, mine in enumerate(answers):
            for baseline in answers[:i]:
                both = mine.answered & baseline.answered
                if baseline.m in (mine.m, None) and both.any():
                    common = {"dataset": dataset.queries.dataset, "model": model}
                    yield common | _compare(mine, baseline, both)


def _answers(item: Scored, labels: pa.Table) -> list[_Answers]:
    said = read_rows(item.predictions, columns=["query_id", "prediction"])
    answered = np.isin(labels["query_id"].to_numpy(), said["query_id"].to_numpy())
    label = labels["label"].to_numpy()[answered]
    seeds: dict[str | None, list[np.ndarray]] = defaultdict(list)
    for variant, mine in by_variant(said, item.run.variants):
        right = np.zeros(len(answered), bool)
        right[answered] = mine["prediction"].to_numpy() == label  # no answer (NaN) is wrong
        seeds[variant.adjustment].append(right)
    return [
        _Answers(item.run.method, adjustment, item.run.m, answered, np.stack(correct))
        for adjustment, correct in seeds.items()
    ]


def _compare(mine: _Answers, baseline: _Answers, both: np.ndarray) -> dict[str, Any]:
    """The two on the (N,) queries that both were asked."""
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
    }


def _correct_for_number(rows: list[dict[str, Any]]) -> None:
    """Add `p_holm` to the rows, family by family."""
    families = defaultdict(list)
    for row in rows:
        families[row["model"], row["baseline"], row["baseline_adjustment"]].append(row)
    for family in families.values():
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p
