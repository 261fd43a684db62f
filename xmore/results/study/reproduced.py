"""`xmore reproduce`: what a run made here has in common with a study's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from xmore.results.runs import Run
from xmore.results.study.pairs import Pair, pairs, partings
from xmore.results.views import open_views

Key = tuple[str, str, str, str, int | None]  # dataset, model, method, prompt set, M


@dataclass(frozen=True)
class Answers:
    """The predictions of a method in both runs, of all adjustments and order seeds."""

    n: int  # in both runs
    differ: int
    absent: int  # in the study alone
    new: int  # here alone
    move: float  # of top-1, here minus there: the largest over the adjustments


@dataclass(frozen=True)
class Compared:
    """An artifact of the study beside the one here; with answers, or numbers, if it has such."""

    pair: Pair
    answers: Answers | None = None  # of predictions
    off: float | None = None  # of a stage in NUMBERS: the largest difference of a number


@dataclass(frozen=True)
class Reproduced:
    """What the run here has in common with the study's."""

    study: Run
    run: Run
    rows: list[Compared]
    partings: list[tuple[Pair, str]]  # where they part first, and why
    reused: int  # artifacts that were there before

    @property
    def answers(self) -> list[Answers]:
        return [row.answers for row in self.rows if row.answers]

    @property
    def same(self) -> bool:
        """Whether all predictions and recalls of the study were made here again, the same."""
        return self.same_answers and self.same_recalls

    @property
    def same_answers(self) -> bool:
        """Whether each prediction of the study was made here again, and is the same."""
        return all(each.differ == each.absent == 0 and each.n for each in self.answers)

    @property
    def same_recalls(self) -> bool:
        """Whether all recalls of the study's retrieval datasets are the same here."""
        return all(row.off == 0 for row in self.rows if row.pair.stage == "retrieval_metrics")


def reproduced(study: Run, run: Run, reused: int) -> Reproduced:
    """Compare a packed run with one made here. Memory: the predictions of both. Raises RunError."""
    with open_views(study) as theirs, open_views(run) as ours, duckdb.connect() as db:
        for name in ("predictions", *NUMBERS):
            db.register(f"a_{name}", _rows(theirs, name))
            db.register(f"b_{name}", _rows(ours, name))
        answers, off = _answers(db), {name: _off(db, name) for name in NUMBERS}
    found = pairs(study, run)
    rows = [
        Compared(
            pair,
            answers.get(_key(pair), NONE) if pair.stage == "predictions" else None,
            off[pair.stage].get(_of(pair)) if pair.stage in NUMBERS else None,
        )
        for pair in found
    ]
    return Reproduced(study, run, rows, partings(found, study, run), reused)


NONE = Answers(0, 0, 0, 0, 0.0)
NUMBERS = {  # stage: what names a row of it, and the numbers in it
    "metrics": (
        ("dataset", "prompt_set", "model", "method", "adjustment", "m", "seed"),
        ("n", "n_covered", "n_short", "top1", "top1_covered", "top5", "ci_low", "ci_high", "ece",
         "mean_image_entropy", "mean_text_entropy"),
    ),
    "comparisons": (
        ("dataset", "prompt_set", "baseline_prompt_set", "model", "method", "adjustment", "m",
         "baseline", "baseline_adjustment"),
        ("n", "only_method", "only_baseline", "difference", "ci_low", "ci_high", "p", "p_holm",
         "minimum_detectable"),
    ),
    "retrieval_metrics": (
        ("dataset", "model", "direction", "k"),
        ("n", "recall", "ci_low", "ci_high", "median_rank", "n_tied"),
    ),
}  # fmt: skip


def _rows(views: duckdb.DuckDBPyConnection, name: str) -> Any:
    if name != "predictions":
        return views.sql(f"from {name}").to_arrow_table()
    query = """
        select p.dataset, p.model, p.method, p.prompt_set, p.m, p.adjustment, p.seed, p.uri,
               p.correct, c.class_name as predicted
        from predictions p
        left join classes c on c.dataset = p.dataset and c.label = p.prediction
    """
    return views.sql(query).to_arrow_table()


def _key(pair: Pair) -> Key:
    return pair.dataset, pair.model, pair.method, pair.prompt_set, pair.m


def _of(pair: Pair) -> tuple[str, str]:
    """Return what rows of numbers an artifact has; `comparisons` are of all datasets."""
    return ("", "") if pair.stage == "comparisons" else (pair.dataset, pair.prompt_set)


def _joined(names: tuple[str, ...]) -> str:
    return " and ".join(f"a.{name} is not distinct from b.{name}" for name in names)


def _answers(db: duckdb.DuckDBPyConnection) -> dict[Key, Answers]:
    of = ("dataset", "model", "method", "prompt_set", "m")
    one = (*of, "adjustment", "seed", "uri")
    either = ", ".join(f"coalesce(a.{name}, b.{name}) as {name}" for name in (*of, "adjustment"))
    rows = db.execute(
        f"""
        with joined as (
          select {either}, a.uri is not null as there, b.uri is not null as here,
                 a.predicted is distinct from b.predicted as differs,
                 a.correct::int as theirs, b.correct::int as ours
          from a_predictions a full join b_predictions b on {_joined(one)}
        ), variants as (
          select {", ".join(of)}, adjustment, count(*) filter (there and here) as n,
                 count(*) filter (there and here and differs) as differ,
                 count(*) filter (not here) as absent, count(*) filter (not there) as new,
                 coalesce(avg(ours) - avg(theirs), 0) as move
          from joined group by all
        )
        select {", ".join(of)}, sum(n)::bigint, sum(differ)::bigint, sum(absent)::bigint,
               sum(new)::bigint, max_by(move, abs(move))
        from variants group by all
        """
    ).fetchall()
    return {row[:5]: Answers(*row[5:]) for row in rows}


def _off(db: duckdb.DuckDBPyConnection, name: str) -> dict[tuple[str, str], float]:
    """Return the largest difference of a number, by dataset and prompt set; NaN if rows lack."""
    keys, numbers = NUMBERS[name]
    places = {"metrics": "a.dataset, a.prompt_set", "retrieval_metrics": "a.dataset, ''"}
    of = places.get(name, "'', ''")
    gaps = ", ".join(
        f"case when a.{n} is null and b.{n} is null then 0 else abs(a.{n} - b.{n}) end"
        for n in numbers
    )
    lacks = " or ".join(f"(a.{n} is null) != (b.{n} is null)" for n in numbers)
    rows = db.execute(
        f"select {of}, if(bool_or(b.dataset is null or {lacks}), 'nan'::double, "
        f"max(greatest({gaps}))) from a_{name} a left join b_{name} b on {_joined(keys)} "
        "group by all"
    ).fetchall()
    return {(dataset, prompt_set): value for dataset, prompt_set, value in rows}
