"""`leaks`: the test images that are in the memory, by their bytes or by the coarse features."""

from __future__ import annotations

import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore.memory.leaks import leaked_pairs, rows_with
from xmore.memory.snapshot import Snapshot
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows


@stage("leaks {candidates.dataset}")
def leaks(
    work: Workspace,
    queries: ArtifactRef,
    candidates: ArtifactRef,
    memory: Snapshot,
    threshold: float,
) -> ArtifactRef:
    """Read `queries`, `candidates` and all keys of the memory -> one row per leaked pair.

    Memory: the hashes of all queries (64 bytes each), one part, and a batch of the memory's keys.
    """
    inputs = (queries.digest, candidates.digest, memory.digest)
    params = {"threshold": threshold}
    key = ArtifactKey("leaks", queries.dataset, params, inputs, candidates.model)
    found = work.store.find(key)
    if found:
        return found

    hashes = read_rows(queries, columns=["sha256"])["sha256"].combine_chunks()
    same = rows_with(memory, hashes)

    def make_part(start: int, stop: int) -> pa.Table:
        images = read_rows(queries, start, stop, ["query_id", "sha256"])
        return leaked_pairs(images, read_rows(candidates, start, stop), same, threshold)

    return work.store.write(key, split_rows(queries.rows, work.execution.part_rows), make_part)
