"""What `xmore pack`, `open` and `reproduce` print."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.cli.terminal.console import record, safe, say, show_table, wants_json
from xmore.files.paths import where
from xmore.files.text import counted
from xmore.report.table import Kind, Table, show, size
from xmore.results.runs import Run
from xmore.results.study.layout import CAPTIONS, texts
from xmore.results.study.pack import Contents
from xmore.results.study.pairs import Pair
from xmore.results.study.reproduced import Compared, Reproduced
from xmore.store.artifacts import ArtifactRef


def show_packed(packed: Contents, study: Path, images: bool) -> None:
    """Print what is in a study and what is not, and what it tells of this machine."""
    run, names = packed.run, [file["file"] for file in packed.written]
    show_table(_stages(run.artifacts))
    kept = [ref for ref in run.artifacts if ref.stage in CAPTIONS]
    shown = [("captions", any(not ref.left_out for ref in kept)), ("images", images)]
    say(f"Also in it: config, {counted(len(packed.cards), 'card')}, versions, report.")
    for what, there in shown if kept else shown[1:]:  # no captions: a run without a memory
        say(f"With {what}." if there else f"Without {what}; to add them: --{what}.")
    say("Test images are in it by their names and hashes, classes by their prompts.")
    told = texts([run.config, run.snapshot, *packed.cards])
    places = sorted({text for text in told if text.startswith(("/", "~"))})
    if places:
        say(safe(f"It names these places: {', '.join(places)}"))
    record("places", ({"place": place} for place in places))
    held = study.stat().st_size
    facts = {"study": study, "run": run.name, "bytes": held, "files": len(names)}
    record("study", [facts | dict(shown)])
    say(safe(f"{study}: run {run.name}, {size(held)}. To read it: xmore open {study}"))


def show_opened(run: Run, study: Path) -> None:
    """Print which stages an opened study has, and the next commands."""
    show_table(_stages(run.artifacts))
    record("study", [{"run": run.name, "results": run.results}])
    here = where(run.results)
    classified = any(ref.stage == "predictions" for ref in run.artifacts)
    say(safe(f"Run {run.name}, in {run.results}. Its report: {run.path / 'report/report.html'}"))
    for line in (
        f"xmore show {run.name}{here}",
        f'xmore sql {run.name} "from {"predictions" if classified else "ranks"}"{here}',
        f"xmore verify {run.name}{here}",
        f"xmore reproduce {study}",
    ):
        say(safe(f"  {line}"))


def _stages(refs: Sequence[ArtifactRef]) -> Table:
    counts, rows, lacking = Counter[str](), Counter[str](), set()
    for ref in refs:
        counts[ref.stage] += 1
        rows[ref.stage] += ref.rows
        lacking |= {ref.stage} if ref.left_out else set()
    columns: list[tuple[str, Kind]] = [
        ("stage", "name"),
        ("artifacts", "count"),
        ("rows", "count"),
        ("packed", "text"),
    ]
    found = [(s, n, rows[s], "hashes" if s in lacking else "yes") for s, n in counts.items()]
    return Table("stages", "", "", columns, found)


def show_reproduced(found: Reproduced) -> bool:
    """Print what is the same, artifact by artifact. Returns whether all answers and recalls are."""
    if wants_json():
        show_table(Table("artifacts", "", "", COLUMNS, [_row(each) for each in found.rows]))
    else:
        show_table(Table("artifacts", "", "", SHOWN, [_cells(each) for each in found.rows]), by=1)
    because = [(pair.dataset, _name(pair), why) for pair, why in found.partings]
    if because or wants_json():
        columns: list[tuple[str, Kind]] = [
            (name, "text") for name in ("dataset", "artifact", "because")
        ]
        show_table(Table("partings", "Where they part first", "", columns, because))
    if not found.same_answers:
        say("top-1: points, here minus the study's, of the adjustment that moved most.")
    facts = _facts(found)
    record("reproduced", [facts])
    if facts["reused"]:
        of_all = f"{facts['reused']} of {len(found.run.artifacts)} artifacts"
        say(f"{of_all} were here before; an empty --results makes all of them anew.")
    verdict = f"Same answers: all {facts['predictions']:,} predictions are equal."
    if not found.same_answers:
        verdict = (
            f"Other answers: {facts['differ']:,} of {facts['predictions']:,} predictions differ"
        )
        verdict += f"; {facts['absent']:,} more are not here." if facts["absent"] else "."
    verdicts = [verdict] if facts["predictions"] or facts["absent"] else []
    if any(each.pair.stage == "retrieval_metrics" for each in found.rows):
        other = "Other recalls: see retrieval_metrics."
        verdicts.append("Same recalls." if found.same_recalls else other)
    say(safe(f"Study {found.study.name}, here {found.run.name}. {' '.join(verdicts)}"))
    return found.same


COLUMNS: list[tuple[str, Kind]] = [
    *((name, "text") for name in ("dataset", "stage", "model", "method", "prompts")),
    ("M", "count"),
    *((name, "text") for name in ("digest", "bytes")),
    *((name, "count") for name in ("predictions", "differ", "absent")),
    ("top-1 moved", "points"),
    ("off by", "number"),
]
SHOWN: list[tuple[str, Kind]] = [
    (name, "text") for name in ("dataset", "artifact", "same", "answers")
]


def _row(row: Compared) -> tuple[Any, ...]:
    pair, answers = row.pair, row.answers
    digest = "not here" if pair.ours is None else "same" if pair.same_digest else "other"
    parts = None if pair.ours is None else "same" if pair.same_bytes else "other"
    counts = (answers.n, answers.differ, answers.absent, answers.move) if answers else (None,) * 4
    place = (pair.dataset, pair.stage, pair.model, pair.method, pair.prompt_set, pair.m)
    return (*place, digest, parts, *counts, row.off)


def _name(pair: Pair) -> str:
    m = None if pair.m is None else f"M = {pair.m}"
    return ", ".join(filter(None, (pair.stage, pair.model, pair.method, pair.prompt_set, m)))


def _cells(row: Compared) -> tuple[Any, ...]:
    pair, answers = row.pair, row.answers
    same = "bytes" if pair.same_bytes else "digest" if pair.same_digest else "no"
    told = ""
    if row.off is not None:
        told = "equal" if row.off == 0 else f"off by {row.off:.2g}"
        told = "other rows" if math.isnan(row.off) else told
    if answers:
        told = f"{answers.differ:,} of {answers.n:,} differ, top-1 {show(answers.move, 'points')}"
        told = told if answers.differ else f"{answers.n:,} equal"
        told += f", {answers.absent:,} not here" if answers.absent else ""
    return pair.dataset, _name(pair), "not here" if pair.ours is None else same, told


def _facts(found: Reproduced) -> dict[str, Any]:
    return {
        "study": found.study.name,
        "run": found.run.name,
        "results": found.run.results,
        "same": found.same,
        "predictions": sum(each.n for each in found.answers),
        "differ": sum(each.differ for each in found.answers),
        "absent": sum(each.absent for each in found.answers),
        "reused": found.reused,
    }
