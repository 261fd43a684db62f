"""A flow run's artifacts in Prefect's UI: tables, a report, the card of a snapshot."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.progress import in_flow_run, log_lines
from xmore.files.errors import SnapshotError
from xmore.memory.snapshot import Snapshot, card_of
from xmore.report.headline import headline, summary
from xmore.report.leaderboard import LEGEND, leaderboards
from xmore.report.recalls import recalls
from xmore.report.snapshot import snapshot_card
from xmore.report.table import Table, as_markdown, show
from xmore.report.tables import comparisons, tables
from xmore.results.notes import notes
from xmore.results.runs import Run
from xmore.results.views import open_views

PLOTS = ("accuracy*.svg", "m-sweep*.svg")  # of the page, in its artifact
MOST_PLOTS = 8  # each takes some 30 kB of Prefect's database
TABLES = ("leaderboard", "recalls", "averages", "hyperparameters", "resolution", "prompt_sets")


def show_results(run: Run, page: Path | None, snapshot: Snapshot | None) -> None:
    """Create a run's leaderboard, comparisons and report as artifacts, and its snapshot's card.

    Does nothing outside a flow run.
    """
    if not in_flow_run():
        return
    db = open_views(run)
    memory = "no memory"
    if snapshot and run.snapshot:
        memory = f"memory {_linked(snapshot, Path(run.snapshot['memory']))}"
    if any(ref.stage == "metrics" for ref in run.artifacts):
        _show_leaderboard(db, run, memory)
    _show_table(comparisons(db, run), run)
    _show_table(recalls(db, run), run)
    when = show(run.finished, "time")
    done = f"Run {run.name} was completed on {when}, after {run.seconds} s in its stages"
    log_lines([*notes(db, run), f"{done}. Report: {page or 'not asked for'}"])
    if page:
        _show_report(db, run, page)


def _show_report(db: duckdb.DuckDBPyConnection, run: Run, page: Path) -> None:
    """Create what fits of the page as Markdown.

    A browser opens no file:// link of an http page, and the file may be on another machine than
    Prefect's server and the reader. An artifact opens wherever Prefect's UI does.
    """
    of = headline(db)
    parts = [f"# Run {run.name}", *map(_escaped, [*summary(db, of), *notes(db, run)])]
    parts += _images(page.parent / "figures")
    parts += [as_markdown(table, _escaped) for table in tables(run, db, of) if table.name in TABLES]
    create_markdown_artifact(
        "\n\n".join(parts),
        key=key_of("report", run.config["name"]),
        description=f"The whole page is a file on {socket.gethostname()}: `{page}`",
    )


def _images(folder: Path) -> Iterator[str]:
    found = [path for pattern in PLOTS for path in sorted(folder.glob(pattern))]
    for path in found[:MOST_PLOTS]:
        svg = path.read_text().replace("<svg ", '<svg style="background: white" ', 1)  # dark UI
        data = base64.b64encode(svg.encode()).decode()
        yield f"![{path.stem}](data:image/svg+xml;base64,{data})"


def _show_table(found: Table, run: Run) -> None:
    if found.rows:
        names = [name for name, _ in found.columns]
        create_table_artifact(
            [_cells(dict(zip(names, line, strict=True))) for line in found.shown()],
            key=key_of(found.name, run.config["name"]),
            description=f"Run **{run.name}**. {found.note}",
        )


def _show_leaderboard(db: duckdb.DuckDBPyConnection, run: Run, memory: str) -> None:
    table = [
        _cells(
            {"dataset": board.dataset, "model": board.model, "n": board.n}
            | dict(zip(board.columns, line, strict=True))
        )
        for board in leaderboards(db, run)
        for line in board.lines
    ]
    create_table_artifact(
        table,
        key=key_of("leaderboard", run.config["name"]),
        description=(
            f"Run **{run.name}**, {memory}. "
            f'Query it: `xmore sql {run.name} "from leaderboard"`\n\n'
            f"{_escaped(' '.join(LEGEND).replace('`', ''))}"
        ),
    )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Return a table's row: Prefect takes each cell for Markdown, in which `* +5.5` is a list."""
    return {name: _escaped(str(cell)) for name, cell in row.items()}


def _escaped(text: str) -> str:
    """Escape text for Prefect's Markdown, which shows entities such as `&#60;` as they are."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _linked(snapshot: Snapshot, memory: Path) -> str:
    """Create the snapshot's card and return a link to it.

    Its re-index may have run elsewhere. A folder made by clip-retrieval has no card: its name.
    """
    try:
        card_of(snapshot)
    except SnapshotError:
        return snapshot.name
    return f"[{snapshot.name}](/artifacts/artifact/{_show_card(snapshot, memory)})"


def show_snapshot(snapshot: Snapshot, memory: Path) -> None:
    """Create the snapshot's card as a Markdown artifact. Does nothing outside a flow run."""
    if in_flow_run():
        _show_card(snapshot, memory)


def _show_card(snapshot: Snapshot, memory: Path) -> UUID:
    key = key_of("snapshot", memory.name)
    return create_markdown_artifact(snapshot_card(snapshot), key=key, description=f"`{memory}`")  # type: ignore[return-value]


def key_of(*parts: Any) -> str:
    """Return an artifact's key: Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower()).strip("-")
