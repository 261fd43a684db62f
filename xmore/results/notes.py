"""What a user should know of a run: what was rejected, cut, skipped, and leaked."""

from __future__ import annotations

from pathlib import Path

import duckdb

from xmore.files.paths import where
from xmore.files.text import counted
from xmore.results.absent import is_absent
from xmore.results.runs import Run
from xmore.results.study.layout import left_out_manifests
from xmore.store.checks import read_manifest


def notes(views: duckdb.DuckDBPyConnection, run: Run) -> list[str]:
    """Return lines about a completed run's data, none if there is nothing to say."""
    return [*_rejected(views, run), *_cut_sentences(run), *_leaks(views, run), *_skipped(run)]


def _rejected(views: duckdb.DuckDBPyConnection, run: Run) -> list[str]:
    """Return rejected test images by cause, and classes without a usable test image."""
    causes = views.execute(
        "select dataset, cause, count(*), min(uri) from rejected group by all order by all"
    ).fetchall()
    query = "select dataset, class_name from classes anti join queries using (dataset, label)"
    unused = [] if run.trial else views.execute(query).fetchall()  # a sample lacks some classes
    return [
        *(
            f"{dataset}: {counted(count, 'test image')} rejected: {cause} ({example})"
            for dataset, cause, count, example in causes
        ),
        *(f"{dataset}: the class {name} has no usable test image" for dataset, name in unused),
    ]


def _cut_sentences(run: Run) -> list[str]:
    """Return which class sentences are longer than a model reads; older runs: none."""
    found = {}
    left_out = left_out_manifests(run)
    for ref in run.artifacts:
        if ref.stage == "scores":
            there = not is_absent(ref)
            manifest = read_manifest(Path(ref.path)) if there else left_out.get(ref.digest, {})
            facts = manifest.get("facts", {})
            if cut := facts.get("cut_sentences"):
                found[ref.dataset, ref.model] = cut
    return [
        f"{dataset}: {cut['count']} of {cut['of']} class sentences are longer than the "
        f"{cut['tokens']} tokens of {model} and were cut; the first is {cut['first']!r}"
        for (dataset, model), cut in found.items()
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
