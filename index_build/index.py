"""The memory's nearest-neighbour index, chosen, trained and tuned by autofaiss."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from xmore.digest import digest_file
from xmore.errors import SnapshotError
from xmore.memory import Snapshot, embedding_blocks, exact_is_affordable
from xmore.paths import fsync_file, write_whole

RECALL_QUERIES, RECALL_K = 256, 128


def build_index(folder: Path, index_key: str | None) -> dict[str, Any]:
    """Index `folder`/img_emb as `folder`/image.index, once -> its key and parameters.

    Inner product, as all features are unit vectors. `index_key` None lets autofaiss choose by
    size. Raises SnapshotError.
    """
    path, infos = folder / "image.index", folder.with_name(f"{folder.name}.index.json")
    if infos.exists():
        facts = json.loads(infos.read_bytes())
        if facts["asked"] == index_key and path.exists():
            return facts
    infos.unlink(missing_ok=True)
    facts = {"asked": index_key, **_autofaiss(folder, path, index_key)}
    write_whole(infos, json.dumps(facts).encode())  # last: it says that the index is whole
    return facts


def measure_recall(snapshot: Snapshot) -> dict[str, Any] | None:
    """recall@128 of the index against exact search, on vectors that are not in it.

    Queries are normalised means of two random rows: no row of the memory, and far from all of
    them, so that real queries do better. None where exact search would take too long.
    """
    from xmore.search import exact_search, index_search, recall

    if not exact_is_affordable(RECALL_QUERIES, snapshot.rows, snapshot.dim, scans=1):
        return None
    rng = np.random.default_rng(0)
    sample = rng.integers(0, snapshot.rows, (2, RECALL_QUERIES))
    means = _rows(snapshot, sample[0]) + _rows(snapshot, sample[1])
    queries = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    found = index_search(queries, snapshot.index_path, RECALL_K, snapshot.rows)
    truth = exact_search(queries, embedding_blocks(snapshot), RECALL_K)
    return {"k": RECALL_K, "queries": RECALL_QUERIES, "recall": recall(found, truth)}


def _autofaiss(folder: Path, path: Path, index_key: str | None) -> dict[str, Any]:
    from autofaiss import build_index as autofaiss_build

    scratch = folder.with_name(f"{folder.name}.autofaiss.json")
    path.unlink(missing_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):  # its bars cannot be switched off
        index, _ = autofaiss_build(
            embeddings=str(folder / "img_emb"),
            index_path=str(path),
            index_infos_path=str(scratch),
            metric_type="ip",
            index_key=index_key,
            nb_cores=os.cpu_count(),
            verbose=logging.ERROR,
        )
    if index is None or not path.exists():
        # autofaiss logs what went wrong and returns None
        raise SnapshotError(
            f"{folder}: autofaiss could not build the index"
            + (f" `{index_key}`; correct `index_key`" if index_key else "")
            + ". The embeddings are kept; run again to go on from them."
        )
    infos = json.loads(scratch.read_text())
    scratch.unlink()
    fsync_file(path)
    return {
        "key": infos["index_key"],
        "parameters": infos["index_param"],
        "sha256": digest_file(path),
    }


def _rows(snapshot: Snapshot, ids: np.ndarray) -> np.ndarray:
    """(N,) memory_ids -> (N, D) float32, read where they lie."""
    rows = np.empty((len(ids), snapshot.dim), np.float32)
    where = np.searchsorted(snapshot.starts, ids, side="right") - 1
    for shard in np.unique(where):
        mapped = np.load(snapshot.shards[shard].embeddings, mmap_mode="r")
        rows[where == shard] = mapped[ids[where == shard] - snapshot.starts[shard]]
    return rows
