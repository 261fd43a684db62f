"""`metrics`: accuracy of every method on a dataset; the first stage that sees labels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.predictions import MethodRun, by_variant
from tasks.stage import Workspace, stage
from xmore.methods.base import Variant
from xmore.results.metrics import Outcome, accuracy_row, mean_entropy
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows


@dataclass(frozen=True)
class Scored:
    """The predictions of one method, and the scores from which they were computed."""

    run: MethodRun
    scores: ArtifactRef
    predictions: ArtifactRef


@stage("metrics {queries.dataset}{work.under}")
def metrics(
    work: Workspace, queries: ArtifactRef, classes: ArtifactRef, scored: list[Scored]
) -> ArtifactRef:
    """Join predictions with labels -> one row per method, adjustment, model, M and seed.

    Only queries with predictions count; queries excluded from a stream have none. Memory: the
    predictions of one method at a time, about 60 bytes per query and variant.
    """
    digests = [ref.digest for item in scored for ref in (item.predictions, item.scores)]
    hyperparameters = [_hyperparameters(item, v) for item in scored for v in item.run.variants]
    params = {"hyperparameters": hyperparameters}
    key = ArtifactKey("metrics", queries.dataset, params, (queries.digest, *digests))

    def make_part(start: int, stop: int) -> pa.Table:
        labels = read_rows(queries, columns=["query_id", "label"])
        rows = [row for item in scored for row in _rows(item, labels, classes.rows)]
        for row, settings in zip(rows, hyperparameters, strict=True):
            row["hyperparameters"] = settings
        return pa.Table.from_pylist(rows, schema=schemas.METRICS)

    return work.store.write(key, [1], make_part)


def _rows(item: Scored, labels: pa.Table, classes: int) -> list[dict[str, Any]]:
    run = item.run
    columns = ["query_id", "prediction", "probability", "top5"]
    predicted = read_rows(item.predictions, columns=columns)
    # `queries` and `scores` have one row per query, in the same order.
    ids = predicted["query_id"].to_numpy()
    in_stream = pa.array(np.isin(labels["query_id"].to_numpy(), ids))
    label = labels.filter(in_stream)["label"].to_numpy()
    confidences = ["image_confidence", "text_confidence", "caption_count"]
    scores = read_rows(item.scores, columns=confidences).filter(in_stream)
    text_entropy = mean_entropy(scores["text_confidence"].to_numpy(), classes)
    common: dict[str, Any] = {
        "method": run.method,
        "model": item.predictions.model,
        "m": run.m,
        "mean_image_entropy": mean_entropy(scores["image_confidence"].to_numpy(), classes),
        "mean_text_entropy": None if run.m is None else text_entropy,
    }
    rows = []
    for variant, mine in by_variant(predicted, run.variants):
        outcome = Outcome(
            label,
            mine["prediction"].to_numpy().astype(np.float64),
            mine["probability"].to_numpy(),
            _in_top5(mine["top5"], label),
            scores["caption_count"].to_numpy(),
        )
        which = {"adjustment": variant.adjustment, "seed": variant.seed}
        rows.append(common | which | accuracy_row(outcome, run.m))
    return rows


def _hyperparameters(item: Scored, variant: Variant) -> str:
    settings = item.run.ref.method.settings(item.run.request, variant)
    return json.dumps({name: asdict(setting) for name, setting in settings.items()})


def _in_top5(top5: pa.ChunkedArray, label: np.ndarray) -> np.ndarray:
    flat, lengths = schemas.to_ragged(top5)
    hit = flat == np.repeat(label, lengths)
    return np.bincount(np.repeat(np.arange(len(label)), lengths)[hit], minlength=len(label)) > 0
