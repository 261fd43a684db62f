"""Artifacts of some queries, cut from those of all queries instead of being computed again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from xmore.store.artifacts import ArtifactKey, ArtifactRef, ArtifactStore, read_rows, split_rows
from xmore.store.checks import read_manifest
from xmore.store.cost import read_cost, write_cost


def cut(
    store: ArtifactStore,
    whole: ArtifactRef,
    kept: np.ndarray,
    inputs: Mapping[str, str],
    part_rows: int,
) -> ArtifactRef:
    """Write the rows of `whole` at the places `kept`, with new query_ids, as an artifact of them.

    `whole` has one row per query; `kept` is (N,) int64, ascending. The key is that of `whole` with
    other `inputs` (old digest -> new one), so a stage that is asked for it finds it. Its facts are
    those of `whole`, its cost the share of its rows. Memory: the rows of `whole` between the first
    and the last of a part.
    """
    path = Path(whole.path)
    manifest, cost = read_manifest(path), read_cost(path)
    digests = tuple(inputs.get(digest, digest) for digest in manifest["inputs"])
    assert list(digests) != manifest["inputs"]  # else its key would be that of `whole`
    key = ArtifactKey(whole.stage, whole.dataset, manifest["params"], digests, whole.model)

    def make_part(start: int, stop: int) -> pa.Table:
        places = kept[start:stop]
        table = read_rows(whole, int(places[0]), int(places[-1]) + 1).take(places - places[0])
        place = table.schema.get_field_index("query_id")
        numbers = pa.array(range(start, stop), pa.int64())
        return table.set_column(place, table.schema.field(place), numbers)

    ref = store.write(key, split_rows(len(kept), part_rows), make_part, lambda: manifest["facts"])
    if cost and cost["seconds"] is not None and not ref.skipped:
        share = len(kept) / max(whole.rows, 1)
        write_cost(Path(ref.path), round(cost["seconds"] * share, 3), cost["peak_rss_mb"])
    return ref
