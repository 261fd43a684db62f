"""Comparison of a run with the paper's tables, or with another run."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import duckdb

from xmore.datasets.card import load_card
from xmore.files.errors import RunError, XmoreError
from xmore.files.paths import PROJECT_ROOT
from xmore.files.yaml import flat
from xmore.methods.base import under, variant_name
from xmore.results.runs import Run
from xmore.results.views import open_views
from xmore.statistics.significance import mcnemar_p
from xmore.store.checks import read_manifest

REFERENCE = PROJECT_ROOT / "data" / "reference"
PAPERS_M = 16
OURS = (  # the paper's method, ours, its adjustment
    ("CLIP", "clip", None),
    ("Caption Ensemble", "caption-ensemble", None),
    ("X-MoRe", "xmore", "minmax"),
    ("X-MoRe", "xmore", "running-sum"),
)
AVERAGES: dict[
    str, dict[str, tuple[str, tuple[str, ...]]]
] = {  # file -> the paper's rows of averages -> our name for each, and the datasets excluded
    "table1_zero_shot": {"Avg.": ("average of the ten", ())},
    "table2_domain_generalization": {
        "Avg.": ("average of the five", ()),
        "Variants Avg.": ("average of the four variants", ("ImageNet",)),
    },
}

_Numbers = tuple[float, float, float]  # top-1 and its bounds, in %
_Of = tuple[str, str, str | None, str]  # the paper's model, method, adjustment, prompt set


@dataclass(frozen=True)
class PaperRow:
    """One number of the paper compared with ours, in percent."""

    model: str
    dataset: str  # the paper's name, or the name of an average
    method: str
    paper: float
    ours: float
    interval: tuple[float, float] | None  # Wilson, 95 %, of ours; averages have none
    errata: str

    @property
    def inside(self) -> bool | None:
        """Whether the paper's number lies in our interval; None without an interval."""
        return None if self.interval is None else self.interval[0] <= self.paper <= self.interval[1]


def to_paper(run: Run) -> list[PaperRow]:
    """Compare tables 1 and 2 with the run's `clip`, `caption-ensemble` and both forms of `xmore`.

    Raises RunError if the run has no dataset and model of these tables.
    """
    mine = _accuracies(run)
    rows: list[PaperRow] = []
    sets = list(dict.fromkeys(prompt_set for *_, prompt_set in mine))
    for file, averages in AVERAGES.items():
        printed = _read(file)
        datasets = dict.fromkeys(row["dataset"] for row in printed)
        single = [name for name in datasets if name not in averages]
        for row, prompt_set in product(printed, sets):
            for theirs, method, adjustment in OURS:
                if row["method"] == theirs:
                    key = (row["model"], method, adjustment, prompt_set)
                    rows += _compared(row, mine.get(key, {}), averages, single, key)
    if not rows:
        raise RunError(
            f"run {run.name}: nothing of it is in the paper's tables, which have RN50/openai and "
            f"ViT-B-16/openai, M = {PAPERS_M}, and the datasets whose card has a `paper_name`. "
            "See configs/paper.yaml."
        )
    return rows


def _compared(
    printed: dict[str, str],
    mine: dict[str, _Numbers],
    averages: dict[str, tuple[str, tuple[str, ...]]],
    single: list[str],
    key: _Of,
) -> Iterator[PaperRow]:
    """Yield the paper's row with our number, if the run has all datasets that it needs."""
    name = printed["dataset"]
    shown, interval = name, None
    if name in averages:
        shown, excluded = averages[name]
        wanted = [dataset for dataset in single if dataset not in excluded]
        if not all(dataset in mine for dataset in wanted):
            return
        ours = sum(mine[dataset][0] for dataset in wanted) / len(wanted)
    elif name in mine:
        ours, *bounds = mine[name]
        interval = (bounds[0], bounds[1])
    else:
        return
    method = under(variant_name(key[1], key[2]), key[3])
    paper = float(printed["top1_percent"])
    yield PaperRow(key[0], shown, method, paper, ours, interval, printed["errata"])


def _accuracies(run: Run) -> dict[_Of, dict[str, _Numbers]]:
    """Return top-1 and its bounds, in %, by the paper's name of each dataset."""
    names = {}
    for name in run.config["datasets"]:
        with suppress(XmoreError):
            card = load_card(name)
            names[card.name] = card.paper_name
    rows = open_views(run).execute(
        "select dataset, model, method, adjustment, prompt_set, 100 * top1, 100 * ci_low, "
        "100 * ci_high from leaderboard where m is null or m = ?",
        [PAPERS_M],
    )
    found: dict[_Of, dict[str, _Numbers]] = {}
    for dataset, model, method, adjustment, prompt_set, *numbers in rows.fetchall():
        architecture, _, tag = model.partition("/")
        paper_name = names.get(dataset)
        if paper_name and tag == "openai":
            theirs = architecture.replace("ViT-B-", "ViT-B/")
            key = (theirs, method, adjustment, prompt_set)
            found.setdefault(key, {})[paper_name] = tuple(numbers)
    return found


def _read(file: str) -> list[dict[str, str]]:
    with (REFERENCE / f"{file}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@dataclass(frozen=True)
class Flips:
    """One variant in two runs, over the queries of both (first order seed)."""

    dataset: str
    model: str
    variant: str
    m: int | None
    n: int
    both: int  # correct in both runs
    only_a: int
    only_b: int

    @property
    def points(self) -> float:
        """Accuracy of b minus that of a, as a share."""
        return (self.only_b - self.only_a) / self.n

    @property
    def p(self) -> float:
        """Two-sided exact p (McNemar) that flips in both directions are equally likely."""
        return mcnemar_p(self.only_a, self.only_b)


@dataclass(frozen=True)
class Comparison:
    """Two runs: differences in config, snapshot and methods, and in predictions."""

    # dotted key, value in a, value in b; also the snapshot, and the sources of methods
    differences: list[tuple[str, Any, Any]]
    flips: list[Flips]
    examples: list[
        tuple[Any, ...]
    ]  # dataset, model, uri, variant, m, class, a's and b's prediction


def between(a: Run, b: Run, examples: int | None = 10) -> Comparison:
    """Return the config differences and flipped queries of two runs.

    Of these, `examples` are listed, in turn of each dataset, model and method; None: all. Memory:
    the predictions of one order seed. Raises RunError if the runs have no query and variant
    in common.
    """
    db = duckdb.connect()
    for name, run in (("a", a), ("b", b)):
        db.register(name, _predictions(run))
    # A run with one prompt set, which has no name, is compared with each set of the other run.
    prompts = "greatest(a.prompt_set, b.prompt_set)"
    variant = f"name || if({prompts} = '', '', ' under ' || {prompts}) as variant"
    joined = (
        "from a join b using (dataset, model, name, m, uri, class_name) "
        "where (a.prompt_set = b.prompt_set or '' in (a.prompt_set, b.prompt_set))"
    )
    rows = db.execute(
        f"select dataset, model, {variant}, nullif(m, 0) as m, count(*), "
        "count(*) filter (a.correct and b.correct), "
        "count(*) filter (a.correct and not b.correct), "
        f"count(*) filter (b.correct and not a.correct) {joined} "
        "group by all order by dataset, model, any_value(a.place), variant"
    ).fetchall()
    if not rows:
        raise RunError(f"runs {a.name} and {b.name} have no query, model and method in common.")
    of_each = "(partition by dataset, model, a.place, variant order by uri)"
    flipped = db.execute(
        f"with flipped as (select dataset, model, uri, {variant}, nullif(m, 0) as m, class_name, "
        f"coalesce(a.predicted, '') as a, coalesce(b.predicted, '') as b, a.place, "
        f"row_number() over {of_each} as turn {joined} and a.correct != b.correct), "
        "chosen as (from flipped order by turn, dataset, model, place, variant limit $n) "
        "select * exclude (place, turn) from chosen order by dataset, model, place, variant, uri",
        {"n": examples},
    ).fetchall()
    theirs, ours = dict(flat(a.config)), dict(flat(b.config))
    keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    differences = [(key, theirs.get(key), ours.get(key)) for key in keys]  # in the config's order
    snapshots = (a.snapshot_name, b.snapshot_name)
    if snapshots[0] != snapshots[1]:
        differences.append(("(snapshot)", *snapshots))
    differences += _edited(_sources(a), _sources(b))
    return Comparison(differences, [Flips(*row) for row in rows], flipped)


def _predictions(run: Run) -> Any:
    """Return the predictions of one order seed, each with its place on the leaderboard."""
    query = """
        select p.dataset, p.model, p.uri, p.class_name, p.correct, c.class_name as predicted,
               variant(p.method, adjustment) as name, coalesce(m, 0) as m, prompt_set,
               [method_place(p.method), m, adjustment_place(adjustment), set_place(prompt_set)]
                 as place
        from predictions p
        left join classes c on c.dataset = p.dataset and c.label = p.prediction
        where seed is null or seed = (select min(seed) from predictions)
    """
    return open_views(run).sql(query).to_arrow_table()


def _edited(
    a: dict[str, dict[str, str]], b: dict[str, dict[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """Yield each method in both runs whose source differs, with the files that do."""
    for method in sorted(a.keys() & b.keys()):
        mine, theirs = a[method], b[method]
        files = [f for f in sorted({**mine, **theirs}) if mine.get(f) != theirs.get(f)]
        if files and mine and theirs:  # older artifacts do not say
            told = [", ".join(f"{f} {of.get(f, '')[:8]}" for f in files) for of in (mine, theirs)]
            yield f"(source of {method})", told[0], told[1]


def _sources(run: Run) -> dict[str, dict[str, str]]:
    """Return the sha256 of the files of each method's source, as its predictions were made."""
    manifests = [
        read_manifest(Path(ref.path)) for ref in run.artifacts if ref.stage == "predictions"
    ]
    return {each["params"]["method"][0]: each.get("source") or {} for each in manifests}
