"""views.sql of a run: DuckDB views over exactly the artifacts that it made or found."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import duckdb

from xmore.paths import PROJECT_ROOT, write_whole
from xmore.runs import Run
from xmore.store import ArtifactRef, read_manifest

FLAT_VIEWS = PROJECT_ROOT / "results" / "views.sql"
WITH_MODEL = ("query_embeddings", "candidates", "captions", "scores")


def write_views(run: Run) -> Path:
    """Write `<run>/views.sql`: one view a stage, then the flat views of results/views.sql."""
    by_stage = defaultdict(list)
    for record in run.artifacts:
        by_stage[record.stage].append(record)
    header = f"-- Views over the artifacts of run {run.name}. Open with: duckdb -init views.sql\n"
    views = [_stage_view(stage, records) for stage, records in by_stage.items()]
    path = run.path / "views.sql"
    write_whole(path, "\n".join([header, *views, FLAT_VIEWS.read_text()]).encode())
    return path


def open_views(run: Run) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the run's views."""
    connection = duckdb.connect()
    connection.execute((run.path / "views.sql").read_text())
    return connection


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _stage_view(stage: str, records: list[ArtifactRef]) -> str:
    selects = "\n  union all by name\n".join(_select(stage, record) for record in records)
    return f"create or replace view {stage} as\n{selects};\n"


def _select(stage: str, record: ArtifactRef) -> str:
    path = Path(record.path)
    files = [quote(str(path / part["file"])) for part in read_manifest(path)["parts"]]
    model = f"{quote(record.model)} as model, " if stage in WITH_MODEL and record.model else ""
    m = ""
    if stage == "scores":
        m = f"{read_manifest(path)['params']['m']}::integer as m, "
    return (
        f"  select {quote(record.dataset)} as dataset, {model}{m}* "
        f"from read_parquet([{', '.join(files)}], hive_partitioning = false)"
    )
