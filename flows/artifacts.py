"""What a flow run leaves in Prefect's UI: the leaderboard as a table, a snapshot as a card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.context import FlowRunContext

from flows.show import leaderboards
from xmore.memory import Snapshot
from xmore.report import comparisons
from xmore.runs import Run
from xmore.views import open_views


def show_results(run: Run, page: Path | None) -> None:
    """Leave a run's leaderboard and comparisons as tables, its report as a link.

    Nothing outside a flow run.
    """
    if FlowRunContext.get() is None:
        return
    _show_leaderboard(run)
    _show_comparisons(run)
    if page:
        create_link_artifact(
            page.as_uri(),
            link_text=f"Report of {run.name}",
            key=key_of("report", run.config["name"]),
            description=f"On the machine that ran it: `{page}`",
        )


def _show_comparisons(run: Run) -> None:
    found = comparisons(open_views(run), run)
    if found.rows:
        names = [name for name, _ in found.columns]
        create_table_artifact(
            [dict(zip(names, line, strict=True)) for line in found.shown()],
            key=key_of("comparisons", run.config["name"]),
            description=f"Run **{run.name}**. {found.note}",
        )


def _show_leaderboard(run: Run) -> None:
    table = [
        {"dataset": board.dataset, "model": board.model, "n": board.n}
        | dict(zip(board.columns, line, strict=True))
        for board in leaderboards(run)
        for line in board.lines
    ]
    memory = Path(run.snapshot["memory"])
    create_table_artifact(
        table,
        key=key_of("leaderboard", run.config["name"]),
        description=(
            f"Run **{run.name}**, memory [{run.snapshot['name']}]"
            f"(/artifacts/key/{key_of('snapshot', memory.name)}).\n\n"
            f"Open it in DuckDB: `duckdb -init {run.path / 'views.sql'}`"
        ),
    )


def show_snapshot(snapshot: Snapshot, memory: Path) -> None:
    """Leave the snapshot's card as a Markdown artifact; nothing outside a flow run."""
    if FlowRunContext.get() is not None:
        key = key_of("snapshot", memory.name)
        create_markdown_artifact(snapshot_card(snapshot), key=key, description=str(memory))


def snapshot_card(snapshot: Snapshot) -> str:
    """A snapshot in Markdown: rows, failures by cause, model, index and its recall."""
    facts = snapshot.manifest
    asked, index = facts["asked"], facts["index"]
    lines = [
        f"# Snapshot {snapshot.name}",
        "",
        "| | |",
        "|---|---|",
        *[f"| source {name} | `{s['place']}` |" for name, s in facts["sources"].items()],
        f"| rows asked for | {asked:,} |",
        f"| rows in the memory | {snapshot.rows:,} ({snapshot.rows / asked:.1%}) |",
        f"| model | {facts['model']['name']}, {snapshot.dim} dimensions |",
        f"| index | {index_name(index)} |",
        f"| its size | {index['bytes'] / 2**20:,.1f} MiB |",
        f"| search by the index | {index['measured']['ms_per_query']} ms a query, one thread |",
    ]
    if texts := facts.get("text_index"):
        lines.append(f"| index of texts | {index_name(texts)} |")
    if index["rerank"] > 1:
        lines.append(f"| re-ranked exactly | the best {index['rerank']} times K |")
    for kind, found in index["measured"]["of"].items():
        for name, recall in found.items():
            shares = recall_line(recall)
            words = {"recall": "recall", "without_rerank": "recall without re-ranking"}[name]
            lines.append(f"| {words}, {index['measured']['queries']} {kind} | {shares} |")
    if facts["failures"]:
        lines += ["", "## Failures", "", "| cause | rows |", "|---|---:|"]
        lines += [f"| {cause} | {count:,} |" for cause, count in most_common(facts["failures"])]
    if facts["filtered"]:
        lines += ["", "## Left out by filters", "", "| filter | rows |", "|---|---:|"]
        lines += [f"| {name} | {count:,} |" for name, count in most_common(facts["filtered"])]
    if facts["hosts"]:
        lines += ["", "## Hosts", "", "| host | rows tried | images |", "|---|---:|---:|"]
        lines += [f"| {host} | {n:,} | {came / n:.1%} |" for host, n, came in facts["hosts"]]
    return "\n".join(lines)


def index_name(index: dict[str, Any]) -> str:
    """An index's key, and the parameter that it is searched with where it has one."""
    return f"{index['key']} {index['parameters']}".strip()


def recall_line(recall: dict[str, float]) -> str:
    """Recall at each number of neighbours, the fewest first."""
    return ", ".join(f"{recall[k]:.3f} @{k}" for k in sorted(recall, key=int))


def most_common(failures: dict[str, int]) -> list[tuple[str, int]]:
    """Causes and counts, the commonest first."""
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))


def key_of(*parts: Any) -> str:
    """An artifact's key: Prefect takes small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower()).strip("-")
