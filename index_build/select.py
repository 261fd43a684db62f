"""Create batches: the rows to process, cut into shards."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from index_build.base.batches import Batch, new_path, write_batch, write_outcomes
from index_build.base.tables import write_tables
from index_build.ledger import bounds_of, open_ledger
from index_build.plan import ReindexPlan
from index_build.sources.look_up import Wanted


def begin_batch(plan: ReindexPlan, wanted: list[Wanted], missing: list[int]) -> list[Batch]:
    """Create a batch for each source in `missing` (positions in `wanted`) with rows to process.

    Memory: DuckDB's limit, and one shard.
    """
    if not missing:
        return []
    batches = []
    config = plan.config
    with open_ledger(config.memory, wanted, plan.refused, config.download) as ledger:
        for i in missing:
            if not ledger.count_new(i):
                continue
            source = wanted[i].listed.source
            path = new_path(config.memory, source.label)
            (path / "rows").mkdir(parents=True)
            shards = write_tables(ledger.db, ledger.new_rows(i), config.shard_rows, path / "rows")
            batch = Batch(
                path=path,
                source=source.label,
                kind=source.kind,
                root=wanted[i].listed.root,
                asked=plan.selection_digest,
                bounds=bounds_of(config.download),
                shards=shards,
            )
            if source.kind != "urls":
                _settle(batch)
            write_batch(batch)
            batches.append(batch)
    return batches


def _settle(batch: Batch) -> None:
    """Write the outcomes of a local source's rows: they count as attempted once listed."""
    for rows in sorted(batch.rows.glob("*.parquet")):
        table = pq.read_table(rows)
        nothing = pa.nulls(len(table), pa.string())
        tries = table.column_names.index("tries")
        table = table.set_column(tries, "tries", pa.array([1] * len(table), pa.int32()))
        table = table.append_column("cause", nothing).append_column("host", nothing)
        write_outcomes(batch, int(rows.stem), table)
