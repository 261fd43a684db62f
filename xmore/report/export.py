"""A run's accuracies as other programs and papers take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from xmore.files.errors import QueryError, meant
from xmore.files.paths import write_whole
from xmore.methods.base import under
from xmore.report.leaderboard import averages, leaderboard
from xmore.report.recalls import model_comparisons, recalls
from xmore.report.table import as_csv, escaped, records, show
from xmore.report.tables import comparisons
from xmore.results.runs import Run
from xmore.statistics.intervals import LEVEL

Spread = Literal["none", "interval", "seeds"]
FEWER = "†"  # beside a method that has seen some images of a dataset only: `options.views.limit`
MEAN = "Mean"  # the column of the datasets' macro average
THEIR_DIRECTIONS = {"image-to-text": "text", "text-to-image": "image"}  # what is retrieved
LATEX = {  # characters that LaTeX reads as commands
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


@dataclass(frozen=True)
class Cell:
    """An accuracy in a table of datasets by methods."""

    top1: float
    spread: float | None  # half of its interval, or the deviation over the orders
    best: bool  # of its model and dataset, as displayed, among methods that saw all images
    significant: bool  # its difference to clip


@dataclass(frozen=True)
class Board:
    """The methods under one inference model: a row each, a column per dataset."""

    model: str
    columns: list[str]
    rows: list[tuple[str, list[Cell | None]]]


def as_latex(db: duckdb.DuckDBPyConnection, run: Run, spread: Spread) -> str:
    """Return a booktabs table as the paper's Table 1: datasets as columns, the best in bold.

    A star marks a significant difference to `clip`; `spread` adds half of Wilson's interval or the
    deviation over the orders.
    """
    boards = _boards(db, run, spread)
    columns = boards[0].columns
    lines = [
        f"% {_legend(run, spread)}",
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        _row(["", *map(_tex, columns)]),
    ]
    for board in boards:
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\textit{{{_tex(board.model)}}}}} \\",
        ]
        lines += [
            _row([_tex(name), *(_cell(cell, _tex_cell) for cell in cells)])
            for name, cells in board.rows
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_markdown(db: duckdb.DuckDBPyConnection, run: Run, spread: Spread) -> str:
    """Return the same as Markdown, a table per inference model."""
    parts = [_legend(run, spread)]
    for board in _boards(db, run, spread):
        lines = [
            [escaped(board.model), *map(escaped, board.columns)],
            ["---", *["---:"] * len(board.columns)],
            *(
                [escaped(name), *(_cell(cell, _markdown_cell) for cell in cells)]
                for name, cells in board.rows
            ),
        ]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def as_json(db: duckdb.DuckDBPyConnection, run: Run) -> str:
    """Return the leaderboard, averages and comparisons, and what they come from, as JSON."""
    facts: dict[str, Any] = {"run": run.name, "started": run.started, "snapshot": run.snapshot}
    facts |= {"config": run.config, "models": run.models, "versions": run.versions}
    facts |= {"code": run.code}
    of_methods = leaderboard(db, run), averages(db, run), comparisons(db, run)
    for table in (*of_methods, recalls(db, run), model_comparisons(db)):
        facts[table.name] = records(table)
    return json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"


def leaderboard_csv(db: duckdb.DuckDBPyConnection, run: Run) -> str:
    """Return the leaderboard as CSV, shares between 0 and 1; of retrieval alone, the recalls."""
    found = leaderboard(db, run)
    return as_csv(found if found.rows else recalls(db, run))


def write_clip_benchmark(
    db: duckdb.DuckDBPyConnection, run: Run, method: str, folder: Path
) -> list[Path]:
    """Write files in the form of CLIP_benchmark's results: one per dataset, model, M, prompt set.

    `method` is a method with its adjustment, as `xmore minmax`; retrieval datasets have none.
    Raises QueryError if the run lacks it.
    """
    written = []
    for name, result in (_of_method(db, run, method) | _of_retrieval(db, run)).items():
        path = folder / f"{name.replace('/', '-').replace(' ', '-')}.json"
        write_whole(path, (json.dumps(result, indent=1) + "\n").encode())
        written.append(path)
    return written


def _of_method(db: duckdb.DuckDBPyConnection, run: Run, method: str) -> dict[str, dict[str, Any]]:
    """Return CLIP_benchmark's results of a method, by the names of their files."""
    rows = db.execute(
        """
        with recalls as (
          select dataset, model, method, adjustment, m, prompt_set, avg(top1) as recall
          from by_class group by all
        )
        select l.dataset, l.model, l.m, l.prompt_set, l.top1, l.top5, r.recall
        from leaderboard_all l join recalls r
          on r.dataset = l.dataset and r.model = l.model and r.method = l.method
          and r.adjustment is not distinct from l.adjustment and r.m is not distinct from l.m
         and r.prompt_set = l.prompt_set
        where variant(l.method, l.adjustment) = $method
        order by l.dataset, l.model, l.m, set_place(l.prompt_set)
        """,
        {"method": method},
    ).fetchall()
    names = "select distinct variant(method, adjustment) from leaderboard_all order by 1"
    known = [name for (name,) in db.execute(names).fetchall()]
    if known and not rows:
        raise QueryError(
            f"run {run.name} has no method `{method}`.{meant(method, known)} It has "
            f"{', '.join(known)}."
        )
    results = {}
    for dataset, model, m, prompt_set, top1, top5, recall in rows:
        of_m = "" if m is None else f"_{m}"
        of_set = f"_{prompt_set}" if prompt_set else ""
        results[f"{dataset}_{model}_{method}{of_m}{of_set}"] = {
            **_of_model(dataset, model),
            "task": "zeroshot_classification",
            "metrics": {"acc1": top1, "acc5": top5, "mean_per_class_recall": recall},
            "language": "en",
            "method": f"{under(method, prompt_set)}{run.trial}",
            "m": m,
        }
    return results


def _of_retrieval(db: duckdb.DuckDBPyConnection, run: Run) -> dict[str, dict[str, Any]]:
    """Return CLIP_benchmark's results of the retrieval datasets, by the names of their files."""
    results: dict[str, dict[str, Any]] = {}
    rows = db.execute("select dataset, model, direction, k, recall from recalls").fetchall()
    for dataset, model, direction, k, recall in rows:
        empty = {
            **_of_model(dataset, model),
            "task": "zeroshot_retrieval",
            "metrics": {},
            "language": "en",
            "method": f"retrieval{run.trial}",
        }
        result = results.setdefault(f"{dataset}_{model}_retrieval", empty)
        result["metrics"][f"{THEIR_DIRECTIONS[direction]}_retrieval_recall@{k}"] = recall
    return results


def _of_model(dataset: str, model: str) -> dict[str, Any]:
    architecture, _, pretrained = model.partition("/")
    return {"dataset": dataset, "model": architecture, "pretrained": pretrained}


def _boards(db: duckdb.DuckDBPyConnection, run: Run, spread: Spread) -> list[Board]:
    found = leaderboard(db, run)
    rows = records(found)
    if not rows:
        raise QueryError(
            f"run {run.name} has retrieval datasets alone. Export it to csv, json or "
            "clip-benchmark."
        )
    several = len({row["m"] for row in rows if row["m"] is not None}) > 1
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    for row in records(averages(db, run)):
        rows.append(row | {"dataset": MEAN, "p": None, "top1_std": None})
    columns = [*datasets, *([MEAN] if len(datasets) > 1 else [])]
    return [
        _board(model, columns, [row for row in rows if row["model"] == model], spread, several)
        for model in dict.fromkeys(row["model"] for row in rows)
    ]


def _board(
    model: str, columns: list[str], rows: list[dict[str, Any]], spread: Spread, several: bool
) -> Board:
    def name_of(row: dict[str, Any]) -> str:
        name = under(row["method"], row.get("prompts", ""))
        name = f"{name}, M = {row['m']}" if several and row["m"] else name
        return f"{name} {FEWER}" if row["method"] in fewer else name

    most: dict[str, int] = {}
    for row in rows:
        most[row["dataset"]] = max(most.get(row["dataset"], 0), row.get("n", 0))  # a mean has none
    fewer = {row["method"] for row in rows if row.get("n", 0) < most[row["dataset"]]}
    best: dict[str, float] = {}
    for row in rows:
        if row["method"] not in fewer:
            best[row["dataset"]] = max(best.get(row["dataset"], 0.0), _shown(row["top1"]))
    cells = {
        (name_of(row), row["dataset"]): Cell(
            row["top1"],
            _spread(row, spread),
            row["method"] not in fewer and _shown(row["top1"]) == best[row["dataset"]],
            row["p"] is not None and row["p"] < LEVEL,
        )
        for row in rows
    }
    names = dict.fromkeys(map(name_of, rows))
    return Board(model, columns, [(n, [cells.get((n, c)) for c in columns]) for n in names])


def _shown(share: float) -> float:
    return round(100 * share, 1)


def _spread(row: dict[str, Any], spread: Spread) -> float | None:
    if spread == "interval":
        return float(row["ci_high"] - row["ci_low"]) / 2
    return row["top1_std"] if spread == "seeds" else None


def _legend(run: Run, spread: Spread) -> str:
    told = {
        "none": "",
        "interval": ", with half of Wilson's 95 % interval",
        "seeds": ", with the standard deviation over the orders",
    }
    return (
        f"Run {run.name}, {run.read}{run.trial}. "
        f"Top-1 accuracy in %{told[spread]}. Bold: the best. *: differs from clip on the same "
        f"images (exact McNemar test, Holm-corrected, p < 0.05). {FEWER}: on fewer images than the "
        "others, so never in bold."
    )


def _cell(cell: Cell | None, form: Callable[[str, str, Cell], str]) -> str:
    if cell is None:
        return ""
    spread = "" if cell.spread is None else show(cell.spread, "share")
    return form(show(cell.top1, "share"), spread, cell)


def _tex_cell(value: str, spread: str, cell: Cell) -> str:
    text = rf"\textbf{{{value}}}" if cell.best else value
    text += r"$^{*}$" if cell.significant else ""
    return text + (rf" {{\scriptsize $\pm$ {spread}}}" if spread else "")


def _markdown_cell(value: str, spread: str, cell: Cell) -> str:
    text = f"**{value}**" if cell.best else value
    text += r"\*" if cell.significant else ""
    return text + (f" ± {spread}" if spread else "")


def _row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _tex(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in " ".join(text.split()))
