"""What a flow run leaves in Prefect's UI: the leaderboard as a table, a snapshot as a card."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext

from xmore.memory import Snapshot
from xmore.runs import Run
from xmore.views import open_views


def show_leaderboard(run: Run) -> None:
    """Leave the run's leaderboard as a table artifact; nothing outside a flow run."""
    if FlowRunContext.get() is None:
        return
    rows = open_views(run).execute(
        "select dataset, model, method, adjustment, m, n, top1, ci_low, ci_high, top1_std, top5 "
        "from leaderboard"
    )
    names = [column[0] for column in rows.description]
    table = [dict(zip(names, map(_cell, row), strict=True)) for row in rows.fetchall()]
    create_table_artifact(
        table,
        key="leaderboard",
        description=(
            f"Run **{run.name}**, memory `{run.snapshot['name']}`. Accuracies in %.\n\n"
            f"Open it in DuckDB: `duckdb -init {run.path / 'views.sql'}`"
        ),
    )


def show_snapshot(snapshot: Snapshot) -> None:
    """Leave the snapshot's card as a Markdown artifact; nothing outside a flow run."""
    if FlowRunContext.get() is not None:
        create_markdown_artifact(snapshot_card(snapshot), key="snapshot")


def snapshot_card(snapshot: Snapshot) -> str:
    """A snapshot in Markdown: rows, failures by cause, model, index and its recall."""
    facts = snapshot.manifest
    asked, recall = facts["asked"], facts["index_recall"]
    lines = [
        f"# Snapshot {snapshot.name}",
        "",
        f"`{snapshot.path}`",
        "",
        "| | |",
        "|---|---|",
        f"| source | `{facts['source']}` |",
        f"| rows asked for | {asked:,} |",
        f"| rows in the memory | {snapshot.rows:,} ({snapshot.rows / asked:.1%}) |",
        f"| model | {facts['model']['name']}, {snapshot.dim} dimensions |",
        f"| index | {facts['index']['key']}, `{facts['index']['parameters']}` |",
    ]
    if recall:
        lines.append(
            f"| recall@{recall['k']} | {recall['recall']:.3f} against exact search, "
            f"{recall['queries']} vectors that are not in the memory |"
        )
    if facts["failures"]:
        lines += ["", "## Failures", "", "| cause | rows |", "|---|---:|"]
        lines += [f"| {cause} | {count:,} |" for cause, count in facts["failures"].items()]
    return "\n".join(lines)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{100 * value:.1f}"
    return "" if value is None else value
