"""Verify a snapshot: its rows, its indices, and the hash of each file."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq

from xmore.files.digests import digest_file
from xmore.files.errors import SnapshotError
from xmore.files.progress import track
from xmore.memory.rows import embedding_blocks
from xmore.memory.snapshot import FOLDERS, Snapshot, index_facts, seen_by


def check_rows(snapshot: Snapshot) -> list[str]:
    """Return the problems found in a snapshot's content.

    Every row must be a unit vector and have a memory_key, and each index must be readable and fit
    the rows. Memory: one block of embeddings.
    """
    from xmore.memory.search import (
        open_index,  # imports torch, which an unchanged re-index does not need
    )

    problems = []
    indexed = by_index(snapshot)
    for rows in indexed:
        try:
            for _ in embedding_blocks(rows):  # checks each row
                pass
        except SnapshotError as error:
            problems.append(str(error))
    for shard in snapshot.shards:
        keys = pq.read_table(shard.metadata, columns=["memory_key"])["memory_key"]
        if keys.null_count or not pc.all(pc.equal(pc.utf8_length(keys), 64)).as_py():
            problems.append(f"{shard.metadata}: has rows without a memory_key")
            break
    for rows in indexed:
        try:
            open_index(rows.index_path, rows.rows, rows.dim)
        except SnapshotError as error:
            problems.append(str(error))
    return problems


def verify_snapshot(snapshot: Snapshot) -> list[str]:
    """Return the problems found in a snapshot's files. Reads every byte."""
    return [
        f"{snapshot.path / file['file']}: its bytes are not those that were published"
        for file in track(snapshot.manifest["files"], "memory verifying", "file")
        if digest_file(snapshot.path / file["file"]) != file["sha256"]
    ]


def by_index(snapshot: Snapshot) -> list[Snapshot]:
    """Return a snapshot's image rows and text rows: those of the two that have an index."""
    kinds = [kind for kind in FOLDERS if index_facts(kind) in snapshot.manifest]
    return [seen for kind in kinds if (seen := seen_by(snapshot, kind))]
