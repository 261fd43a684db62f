"""What a user should know of a run: what was rejected, cut, skipped, and leaked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from xmore.datasets.captions import OF_CAPTIONS
from xmore.files.paths import where
from xmore.files.text import counted
from xmore.results.absent import is_absent
from xmore.results.runs import Run
from xmore.results.study.layout import left_out_manifests
from xmore.store.checks import read_manifest

Manifests = dict[str, dict[str, Any]]  # by digest


def notes(views: duckdb.DuckDBPyConnection, run: Run) -> list[str]:
    """Return lines about a completed run's data, none if there is nothing to say."""
    left_out = left_out_manifests(run)
    cut = [*_cut_sentences(run, left_out), *_cut_captions(run, left_out)]
    return [*_rejected(views, run), *cut, *_ties(views), *_leaks(views, run), *_skipped(run)]


def _rejected(views: duckdb.DuckDBPyConnection, run: Run) -> list[str]:
    """Return rejected images and captions by cause, and classes without a usable test image."""
    causes = views.execute(
        "select dataset, cause, count(*), min(uri) from rejected group by all order by all"
    ).fetchall()
    query = "select dataset, class_name from classes anti join queries using (dataset, label)"
    unused = [] if run.trial else views.execute(query).fetchall()  # a sample lacks some classes
    return [
        *(
            f"{dataset}: {counted(count, _what(cause))} rejected: {cause} ({example})"
            for dataset, cause, count, example in causes
        ),
        *(f"{dataset}: the class {name} has no usable test image" for dataset, name in unused),
    ]


def _what(cause: str) -> str:
    return "caption" if cause in OF_CAPTIONS else "test image"


def _cut_captions(run: Run, left_out: Manifests) -> list[str]:
    """Return how many captions of retrieval datasets are longer than a model reads."""
    return [
        f"{dataset}: {cut['count']} of {cut['of']} captions are longer than the {cut['tokens']} "
        f"tokens of {model} and were cut"
        for (dataset, model), cut in _cut(run, left_out, "ranks", "cut_captions").items()
    ]


def _cut(
    run: Run, left_out: Manifests, stage: str, fact: str
) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return what a stage says of cut texts, by dataset and model; older runs: nothing."""
    found = {}
    for ref in run.artifacts:
        if ref.stage == stage:
            there = not is_absent(ref)
            manifest = read_manifest(Path(ref.path)) if there else left_out.get(ref.digest, {})
            facts = manifest.get("facts", {})
            if cut := facts.get(fact):
                found[ref.dataset, ref.model] = cut
    return found


def _cut_sentences(run: Run, left_out: Manifests) -> list[str]:
    """Return which class sentences are longer than a model reads."""
    return [
        f"{dataset}: {cut['count']} of {cut['of']} class sentences are longer than the "
        f"{cut['tokens']} tokens of {model} and were cut; the first is {cut['first']!r}"
        for (dataset, model), cut in _cut(run, left_out, "scores", "cut_sentences").items()
    ]


def _ties(views: duckdb.DuckDBPyConnection) -> list[str]:
    """Return in how many ranks equal similarities are decided by their order, if in any."""
    found = views.execute(
        "select dataset, direction, max(n_tied), any_value(n) from retrieval_metrics "
        "where n_tied > 0 group by all order by all"
    )
    return [
        f"{dataset}, {direction}: {count:,} of {n:,} ranks are ties (equal images or captions)"
        for dataset, direction, count, n in found.fetchall()
    ]


def _leaks(views: duckdb.DuckDBPyConnection, run: Run) -> list[str]:
    """Return the number of test images that are in the memory, if there are any."""
    left_out = ", and were excluded" if run.config.get("leaks", {}).get("exclude") else ""
    found = views.execute(
        "select dataset, count(distinct query_id), "
        "(select count(*) from queries q where q.dataset = leaks.dataset) "
        "from leaks group by dataset order by dataset"
    )
    return [
        f"{dataset}: {count} of {n} test images are in the memory{left_out}; "
        f"see: xmore leaks {run.name}{where(run.results)}"
        for dataset, count, n in found.fetchall()
    ]


def _skipped(run: Run) -> list[str]:
    if all(ref.skipped for ref in run.artifacts):
        return ["Nothing to do: every stage was already complete and was skipped."]
    return []
