"""Examples of a run: single queries, sampled so that every case of every dataset occurs."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from xmore.files.progress import track
from xmore.files.sql import quote
from xmore.report.headline import Headline
from xmore.report.html import inline
from xmore.report.pictures import NO_IMAGES, pictures_of
from xmore.results.runs import Run

EXAMPLES = 300  # maximum number of queries, whatever the size of the run
CAPTIONS = 8  # best captions per query
TOP = 5  # classes of a distribution
TEXT = 300  # characters of a caption
QUERY_SIDE, MEMORY_SIDE = 176, 112  # pixels of an image's longer side


@dataclass(frozen=True)
class Shown:
    """What of other people's content the examples show."""

    captions: bool = True
    images: bool = True


EVERYTHING = Shown()


@dataclass
class ModelResult:
    """The scores and predictions of one inference model for a query."""

    image: list[tuple[str, float]]  # class and probability, best first
    text: list[tuple[str, float]]  # empty without captions
    weights: tuple[float, float] | None  # of the headline: image, captions
    predictions: list[tuple[str, int | None, str | None, float | None, bool]] = field(
        default_factory=list
    )  # method, M, class, probability, correct; for ordered methods those of the first seed
    cases: list[str] = field(default_factory=list)


@dataclass
class Example:
    """A query, its captions, and the result of each model."""

    dataset: str
    query_id: int
    uri: str
    label: str
    captions: list[tuple[int, float, str]]  # memory_id, similarity in the fine space, text
    models: dict[str, ModelResult]  # inference model -> its result


def case_names(of: Headline, captions: bool) -> dict[str, str]:
    """Map each case to its SQL condition; a query can belong to several cases.

    Without `captions`, as in a run without a memory, no case is about them.
    """
    if not captions:
        return {f"{of.method} wrong": "not correct", f"{of.method} right": "correct"}
    image, text = "(image_prediction = label)", "coalesce(text_prediction = label, false)"
    return {
        "image right, captions wrong": f"{image} and text_prediction is not null and not {text}",
        "captions right, image wrong": f"{text} and not {image}",
        f"both wrong, {of.method} right": f"not {image} and not {text} and correct",
        f"{of.method} wrong": "not correct",
        "agreement": "coalesce(image_prediction = text_prediction, false)",
        "no captions": "text_prediction is null",
    }


def examples(db: duckdb.DuckDBPyConnection, of: Headline, captions: bool) -> list[Example]:
    """Select at most EXAMPLES queries, in turn from each combination of cases, ordered by a hash.

    Memory: the cases of all queries, and the scores of the selected ones, EXAMPLES x models x
    classes.
    """
    names = case_names(of, captions)
    tags = ", ".join(f"if({condition}, {quote(name)}, null)" for name, condition in names.items())
    db.execute(
        f"""
        create or replace temp table tagged as
        select dataset, query_id, model, list_filter([{tags}], lambda x: x is not null) as cases,
               image_weight, text_weight
        from predictions
        where method = $method and adjustment is not distinct from $adjustment
          and m is not distinct from $m and seed is not distinct from $seed
          and prompt_set = $prompt_set
        """,
        of.values | {"seed": of.seed},
    )
    db.execute(
        f"""
        create or replace temp table chosen as
        with one as (
          select dataset, query_id, list(cases order by model) as kind from tagged group by all
        ), ranked as (
          select *, row_number() over (
            partition by dataset, kind order by md5(query_id::varchar)) as turn
          from one
        )
        select dataset, query_id from ranked order by turn, dataset, query_id limit {EXAMPLES}
        """
    )
    found = {
        (dataset, query_id): Example(dataset, query_id, uri, label, [], {})
        for dataset, query_id, uri, label in db.execute(
            "select dataset, query_id, uri, class_name from queries join chosen "
            "using (dataset, query_id) order by dataset, query_id"
        ).fetchall()
    }
    _add_captions(db, found)
    _add_scores(db, found, of)
    _add_predictions(db, found, of)
    return list(found.values())


_Found = dict[tuple[str, int], Example]


def _add_captions(db: duckdb.DuckDBPyConnection, found: _Found) -> None:
    rows = db.execute(
        "select dataset, query_id, memory_id, similarity, caption from captions_long "
        f"join chosen using (dataset, query_id) where rank <= {CAPTIONS} order by rank"
    )
    for dataset, query_id, memory_id, similarity, caption in rows.fetchall():
        found[dataset, query_id].captions.append((memory_id, similarity, caption[:TEXT]))


def _add_scores(db: duckdb.DuckDBPyConnection, found: _Found, of: Headline) -> None:
    names: dict[str, dict[int, str]] = defaultdict(dict)
    for dataset, label, name in db.execute(
        "select dataset, label, class_name from classes"
    ).fetchall():
        names[dataset][label] = name
    rows = db.execute(
        "select dataset, query_id, model, image_scores, text_scores, cases, image_weight, "
        "text_weight from scores join chosen using (dataset, query_id) "
        "join tagged using (dataset, query_id, model) "
        "where m is not distinct from coalesce($m, (select min(m) from scores)) "
        "and prompt_set = $prompt_set "
        "order by model",
        {"m": of.m, "prompt_set": of.prompt_set},
    )
    while batch := rows.fetchmany(100):
        for dataset, query_id, model, image, text, cases, weight, other in batch:
            found[dataset, query_id].models[model] = ModelResult(
                _best(image, names[dataset]),
                _best(text, names[dataset]),
                None if weight is None else (weight, other),
                cases=cases,
            )


def _best(scores: list[float] | None, names: dict[int, str]) -> list[tuple[str, float]]:
    if scores is None:
        return []
    order = np.argsort(-np.array(scores), kind="stable")[:TOP]
    return [(names[label], scores[label]) for label in order.tolist()]


def _add_predictions(db: duckdb.DuckDBPyConnection, found: _Found, of: Headline) -> None:
    rows = db.execute(
        """
        select p.dataset, p.query_id, p.model, variant(p.method, p.adjustment), p.m,
               c.class_name, p.probability, p.correct
        from predictions p
        join chosen using (dataset, query_id)
        left join classes c on c.dataset = p.dataset and c.label = p.prediction
        where (p.m is null or p.m is not distinct from $m) and p.prompt_set = $prompt_set
          and (p.seed is null or p.seed = (select min(seed) from metrics))
        order by method_place(p.method), p.method, adjustment_place(p.adjustment)
        """,
        {"m": of.m, "prompt_set": of.prompt_set},
    )
    for dataset, query_id, model, *prediction in rows.fetchall():
        found[dataset, query_id].models[model].predictions.append(tuple(prediction))


def gallery(
    run: Run, found: list[Example], of: Headline, shown: Shown = EVERYTHING
) -> dict[str, Any]:
    """Return the examples as JSON; an image that several queries retrieved is stored only once.

    Without captions, the images that belong to them are not shown either.
    """
    by_dataset: dict[str, list[Example]] = defaultdict(list)
    for example in found:
        example.captions = example.captions if shown.captions else []
        by_dataset[example.dataset].append(example)
    cards: list[dict[str, Any]] = []
    pictures: dict[int, str | None] = {}
    for dataset, mine in by_dataset.items():
        with pictures_of(run, dataset) if shown.images else nullcontext(NO_IMAGES) as source:
            for example in track(mine, f"{dataset} images", "image"):
                cards.append(_card(example, inline(source.query(example.uri), QUERY_SIDE)))
            ids = {row[0] for example in mine for row in example.captions} - pictures.keys()
            for i, data in track(source.memory(ids), "memory images", "image", len(ids)):
                pictures[i] = inline(data, MEMORY_SIDE)
    return {
        "method": of.name,
        "m": of.m,
        "memory": run.snapshot is not None,
        "cases": list(case_names(of, captions=run.snapshot is not None)),
        "pictures": {str(i): picture for i, picture in pictures.items() if picture},
        "cards": cards,
    }


def _card(example: Example, picture: str | None) -> dict[str, Any]:
    return {
        "dataset": example.dataset,
        "id": example.query_id,
        "uri": example.uri,
        "label": example.label,
        "image": picture,
        "captions": [[i, round(similar, 3), text] for i, similar, text in example.captions],
        "models": {
            model: {
                "image": [[name, round(p, 3)] for name, p in result.image],
                "text": [[name, round(p, 3)] for name, p in result.text],
                "weights": result.weights and [round(weight, 3) for weight in result.weights],
                "predictions": [
                    [method, m, name, None if p is None else round(p, 3), correct]
                    for method, m, name, p, correct in result.predictions
                ],
                "cases": result.cases,
            }
            for model, result in example.models.items()
        },
    }
