"""A flow run's artifacts in Prefect's UI: the leaderboard as a table, a snapshot as a card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.context import FlowRunContext

from tasks.progress import log_lines
from xmore.memory.snapshot import Snapshot
from xmore.report.leaderboard import leaderboards
from xmore.report.snapshot import snapshot_card
from xmore.report.tables import comparisons
from xmore.results.notes import notes
from xmore.results.runs import Run
from xmore.results.views import open_views


def show_results(run: Run, page: Path | None) -> None:
    """Create a run's leaderboard and comparisons as tables, its report as a link.

    Does nothing outside a flow run.
    """
    if FlowRunContext.get() is None:
        return
    db = open_views(run)
    _show_leaderboard(db, run)
    _show_comparisons(db, run)
    log_lines(
        [*notes(db, run), f"Run {run.name}: {run.seconds} s. Report: {page or 'not asked for'}"]
    )
    if page:
        create_link_artifact(
            page.as_uri(),
            link_text=f"Report of {run.name}",
            key=key_of("report", run.config["name"]),
            description=f"On the machine that ran it: `{page}`",
        )


def _show_comparisons(db: duckdb.DuckDBPyConnection, run: Run) -> None:
    found = comparisons(db, run)
    if found.rows:
        names = [name for name, _ in found.columns]
        create_table_artifact(
            [dict(zip(names, line, strict=True)) for line in found.shown()],
            key=key_of("comparisons", run.config["name"]),
            description=f"Run **{run.name}**. {found.note}",
        )


def _show_leaderboard(db: duckdb.DuckDBPyConnection, run: Run) -> None:
    table = [
        {"dataset": board.dataset, "model": board.model, "n": board.n}
        | dict(zip(board.columns, line, strict=True))
        for board in leaderboards(db, run)
        for line in board.lines
    ]
    memory = Path(run.snapshot["memory"])
    create_table_artifact(
        table,
        key=key_of("leaderboard", run.config["name"]),
        description=(
            f"Run **{run.name}**, memory [{run.snapshot['name']}]"
            f"(/artifacts/key/{key_of('snapshot', memory.name)}).\n\n"
            f'Query it: `xmore sql {run.name} "from leaderboard"`'
        ),
    )


def show_snapshot(snapshot: Snapshot, memory: Path) -> None:
    """Create the snapshot's card as a Markdown artifact. Does nothing outside a flow run."""
    if FlowRunContext.get() is not None:
        key = key_of("snapshot", memory.name)
        create_markdown_artifact(snapshot_card(snapshot), key=key, description=str(memory))


def key_of(*parts: Any) -> str:
    """Return an artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower()).strip("-")
