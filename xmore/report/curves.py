"""Data of a run's curves and histograms, aggregated in DuckDB; `figures` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from xmore.report.headline import Headline

BINS = 25  # bins of a confidence histogram, over [0, 1]
RANKS = 64  # maximum number of points of a curve over ranks


@dataclass(frozen=True)
class Histogram:
    """The histogram of one quantity of one modality, for one dataset and model."""

    dataset: str
    model: str
    n: int
    quantity: str  # `confidence` or `weight`
    modality: str  # `image` or `captions`
    counts: np.ndarray  # (BINS,) int


def confidences(db: duckdb.DuckDBPyConnection, of: Headline) -> list[Histogram]:
    """Return the histograms of both modalities: confidences before adjustment, weights after."""
    rows = db.execute(
        f"""
        with weighted as (
          select dataset, model, image_weight, text_weight, image_confidence, text_confidence
          from predictions join scores using (dataset, model, m, prompt_set, query_id)
          where method = $method and adjustment is not distinct from $adjustment and m = $m
            and seed is not distinct from $seed and prompt_set = $prompt_set
        ), long as (
          select dataset, model, 'confidence' as quantity, 'image' as modality,
                 image_confidence as value from weighted
          union all select dataset, model, 'confidence', 'captions', text_confidence from weighted
          union all select dataset, model, 'weight', 'image', image_weight from weighted
          union all select dataset, model, 'weight', 'captions', text_weight from weighted
        )
        select dataset, model, quantity, modality,
               least(greatest(floor(value * {BINS}), 0), {BINS - 1})::integer as bin, count(*)
        from long where value is not null group by all order by all
        """,
        of.values | {"seed": of.seed},
    ).fetchall()
    counts: dict[tuple[str, str, str, str], np.ndarray] = {}
    for *key, number, count in rows:
        counts.setdefault(tuple(key), np.zeros(BINS, np.int64))[number] = count
    return [
        Histogram(dataset, model, int(found.sum()), quantity, modality, found)
        for (dataset, model, quantity, modality), found in counts.items()
    ]


@dataclass(frozen=True)
class Curve:
    """The points of one variant, or of one quantity, on one dataset."""

    dataset: str
    model: str
    n: int
    name: str
    x: np.ndarray  # (P,)
    y: np.ndarray  # (P,)
    low: np.ndarray  # (P,) lower end of a band around y
    high: np.ndarray


def by_m(db: duckdb.DuckDBPyConnection, of: Headline) -> list[Curve]:
    """Return top-1 in % over M with its interval, if the run has several M (the paper's Figure 4).

    `clip`, which has no M, is a horizontal line.
    """
    return _curves(
        db,
        """
        with every as (select distinct m from leaderboard where m is not null)
        select dataset, model, n, variant(method, adjustment), every.m, 100 * top1, 100 * ci_low,
               100 * ci_high
        from leaderboard l join every on l.m = every.m or l.method = 'clip'
        where (select count(*) from every) > 1 and prompt_set = $prompt_set
        order by dataset, model, method_place(method), method,
                 adjustment_place(adjustment), every.m
        """,
        {"prompt_set": of.prompt_set},
    )


def reliability(db: duckdb.DuckDBPyConnection, of: Headline) -> list[Curve]:
    """Return accuracy by probability, in %, of the headline and all methods without adjustment."""
    return _curves(
        db,
        """
        select r.dataset, r.model, l.n, name,
               100 * probability, 100 * top1,
               100 * greatest(0, wilson(top1, answers / seeds, -1)),
               100 * least(1, wilson(top1, answers / seeds, 1))
        from (
          select *, variant(method, adjustment) as name from reliability
          where prompt_set = $prompt_set
        ) r
        join (select dataset, model, n, method, adjustment, m, greatest(seeds, 1) as seeds
              from leaderboard where prompt_set = $prompt_set) l
          on l.dataset = r.dataset and l.model = r.model and l.method = r.method
         and l.adjustment is not distinct from r.adjustment and l.m is not distinct from r.m
        where (r.m is null or r.m = $m)
          and (r.adjustment is null or (r.method = $method and r.adjustment = $adjustment))
        order by r.dataset, r.model,
                 method_place(r.method), name, bin
        """,
        of.values,
    )


def similarities(db: duckdb.DuckDBPyConnection) -> list[Curve]:
    """Return the similarity of coarse neighbours by rank: median and middle 80 % of the images."""
    return _curves(
        db,
        f"""
        with ranked as (
          select dataset, model, rank, similarity from candidates_long
          where rank <= 16 or rank % greatest(1, (select max(len(memory_ids)) from candidates)
                                              // {RANKS}) = 0
        )
        select dataset, model, max(count(*)) over (partition by dataset), 'similarity', rank,
               quantile_cont(similarity, 0.5), quantile_cont(similarity, 0.1),
               quantile_cont(similarity, 0.9)
        from ranked group by dataset, model, rank order by dataset, model, rank
        """,
    )


def _curves(
    db: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None
) -> list[Curve]:
    points: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    sizes: dict[tuple[str, str, str], int] = {}
    for dataset, model, n, name, *point in db.execute(query, values or {}).fetchall():
        points.setdefault((dataset, model, name), []).append(tuple(map(float, point)))
        sizes[dataset, model, name] = n
    curves = []
    for (dataset, model, name), found in points.items():
        x, y, low, high = np.array(found).T
        curves.append(Curve(dataset, model, sizes[dataset, model, name], name, x, y, low, high))
    return curves
