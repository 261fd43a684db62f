"""How a query was classified, step by step: read from the views of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from xmore.files.errors import QueryError, meant

TOP = 5


@dataclass(frozen=True)
class ModelScores:
    """The scores of one inference model for the image and for M captions, under a prompt set."""

    model: str
    m: int | None  # None in a run without a memory
    prompt_set: str  # empty in a run with one set
    image: list[tuple[str, float]]  # class and probability, best first
    text: list[tuple[str, float]]  # empty without captions
    image_confidence: float
    text_confidence: float | None


@dataclass(frozen=True)
class Answer:
    """One prediction of a method; order seeds that agree are combined."""

    model: str
    method: str  # with its adjustment, and the prompt set if there are several
    m: int | None
    image_weight: float | None  # mean over the seeds
    text_weight: float | None
    answer: str | None
    probability: float | None
    seeds: str  # "2 of 3", empty if the method ignores the order
    correct: bool | None  # None without a label


@dataclass(frozen=True)
class Neighbour:
    """A memory row: a candidate, or a kept caption."""

    rank: int
    memory_id: int
    similarity: float
    caption: str


@dataclass(frozen=True)
class Explanation:
    """A query, its retrieved rows, its scores and its predictions."""

    dataset: str
    query_id: int
    uri: str
    label: str | None
    scores: list[ModelScores]  # one per inference model, M and prompt set
    captions: list[Neighbour]  # up to the largest M
    candidates: list[Neighbour]  # without their texts
    answers: list[Answer]


def explain(db: duckdb.DuckDBPyConnection, query: str, dataset: str | None) -> Explanation:
    """Explain one query, given by its id or the end of its file's path. Raises QueryError."""
    row = _find(db, query, dataset)
    where = {"d": row["dataset"], "q": row["query_id"]}
    if _rows(db, "select 1 from raw_ranks where dataset = $d and query_id = $q", where):
        raise QueryError(
            f"no method classifies a retrieval dataset: query {row['query_id']} of "
            f"{row['dataset']} has ranks instead. See the view `ranks` with `xmore sql`."
        )
    return Explanation(
        dataset=row["dataset"],
        query_id=row["query_id"],
        uri=row["uri"],
        label=row["class_name"],
        scores=_scores(db, where),
        captions=_neighbours(db, where, "captions_long", "caption"),
        candidates=_neighbours(db, where, "candidates_long", "''"),
        answers=_answers(db, where),
    )


def _find(db: duckdb.DuckDBPyConnection, query: str, dataset: str | None) -> dict[str, Any]:
    found = _rows(
        db,
        "select dataset, query_id, uri, class_name from queries where ($d is null or dataset = $d)"
        " and (query_id::varchar = $q or uri = $q or ends_with(uri, '/' || $q)) limit 9",
        {"d": dataset, "q": query},
    )
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{row['dataset']} {row['query_id']} ({row['uri']})" for row in found)
        raise QueryError(
            f"{query!r} matches more than one query: {names}. Add --dataset, or a longer path."
        )
    counts = _rows(db, "select dataset, count(*) as n from queries group by all order by all", {})
    known = [row["dataset"] for row in counts]
    if dataset is not None and dataset not in known:
        raise QueryError(
            f"the run has no dataset `{dataset}`.{meant(dataset, known)} Set --dataset to one of: "
            f"{', '.join(known)}."
        )
    ranges = ", ".join(f"{row['dataset']} has 0 to {row['n'] - 1}" for row in counts)
    raise QueryError(f"no query {query!r}: {ranges}. Give a query_id or a file's path.")


def _scores(db: duckdb.DuckDBPyConnection, where: dict[str, Any]) -> list[ModelScores]:
    scored = _rows(
        db,
        "select model, m, prompt_set, image_confidence, text_confidence from scores "
        "where dataset = $d and query_id = $q order by model, m, set_place(prompt_set)",
        where,
    )
    return [
        ModelScores(
            row["model"],
            row["m"],
            row["prompt_set"],
            _top(db, where, row, "image_score"),
            _top(db, where, row, "text_score"),
            row["image_confidence"],
            row["text_confidence"],
        )
        for row in scored
    ]


def _top(
    db: duckdb.DuckDBPyConnection, where: dict[str, Any], of: dict[str, Any], column: str
) -> list[tuple[str, float]]:
    rows = _rows(
        db,
        f"select class_name, {column} as score from scores_long where dataset = $d and "
        "query_id = $q and model = $model and m is not distinct from $m and prompt_set = $s "
        f"and {column} is not null "
        f"order by score desc, label limit {TOP}",
        where | {"model": of["model"], "m": of["m"], "s": of["prompt_set"]},
    )
    return [(row["class_name"], row["score"]) for row in rows]


def _neighbours(
    db: duckdb.DuckDBPyConnection, where: dict[str, Any], view: str, text: str
) -> list[Neighbour]:
    rows = _rows(
        db,
        f"select rank, memory_id, similarity, {text} as caption from {view} "
        "where dataset = $d and query_id = $q order by rank",
        where,
    )
    return [Neighbour(**row) for row in rows]


def _answers(db: duckdb.DuckDBPyConnection, where: dict[str, Any]) -> list[Answer]:
    rows = _rows(
        db,
        """
        with mine as (
          select *,
                 count(seed) over (partition by model, method, adjustment, m, prompt_set) as seeds
          from predictions where dataset = $d and query_id = $q
        )
        select p.model, under(variant(p.method, p.adjustment), p.prompt_set) as method, p.m,
               avg(p.image_weight) as image_weight, avg(p.text_weight) as text_weight,
               c.class_name as answer, avg(p.probability) as probability,
               if(seeds = 0, '', count(*) || ' of ' || seeds) as seeds,
               if(p.label is null, null, any_value(p.correct)) as correct
        from mine p
        left join classes c on c.dataset = p.dataset and c.label = p.prediction
        group by p.model, p.method, p.adjustment, p.m, p.prompt_set, c.class_name, seeds, p.label
        order by p.model, p.m nulls first,
                 method_place(p.method),
                 p.method, adjustment_place(p.adjustment), set_place(p.prompt_set), count(*) desc
        """,
        where,
    )
    return [Answer(**row) for row in rows]


def _rows(db: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any]) -> list[dict]:
    used = {name: value for name, value in values.items() if f"${name}" in query}
    cursor = db.execute(query, used)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
