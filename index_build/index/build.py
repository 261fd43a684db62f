"""The memory's nearest-neighbour index: build it, tune it on queries not in it, add rows to it.

A row's id in the index is its position in the snapshot, which is its memory_id.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from index_build.base.spark import spark_session
from xmore.config.memory import IndexConfig
from xmore.files.digests import digest_file
from xmore.files.errors import SnapshotError
from xmore.files.paths import fsync_dir, fsync_file, remove_folder, without_patterns, write_whole
from xmore.files.progress import counting
from xmore.memory.rows import embedding_blocks, embeddings_of
from xmore.memory.snapshot import Kind, Snapshot, read_shards, seen_by

LARGE = 1 << 30  # bytes of float32 rows from which an index must be memory-mappable
ROW_ID = 8  # bytes of a row's id in an inverted list
TRAINING_ROWS = 100  # per cluster, as in autofaiss
AUTOFAISS = re.compile(r"Flat|HNSW\d+|IVF\d+,Flat|(OPQ\d+_\d+,IVF\d+(_HNSW\d+)?,PQ\d+(x8)?)")


def build_index(
    folder: Path, config: IndexConfig, spark_master: str = "local[2]", kind: Kind = "image"
) -> dict[str, Any]:
    """Index `folder`/img_emb as `folder`/image.index -> its facts for the manifest.

    With `kind` "text": `folder`/text_emb as `folder`/text.index. The metric is the inner product,
    as all features are unit vectors. A built index is not rebuilt for another target recall.
    Raises SnapshotError. Memory: at most twice `config.memory_gb` during the build; then the
    index, and what exact search holds.
    """
    rows = unpublished(folder, kind)
    name = "index" if kind == "image" else f"{kind}-index"
    path, built = rows.index_path, folder.with_name(f"{folder.name}.{name}.json")
    asked = {"key": config.key, "memory_gb": config.memory_gb}
    facts = json.loads(built.read_bytes()) if built.exists() and path.exists() else {}
    if facts.get("asked") != asked:
        built.unlink(missing_ok=True)
        facts = {"asked": asked, "key": _build(rows, config, spark_master)}
        write_whole(built, json.dumps(facts).encode())  # last: it marks the index as complete
    return tune_index(rows, facts["key"], config)


def tune_index(rows: Snapshot, key: str, config: IndexConfig) -> dict[str, Any]:
    """Set the search parameter in the index's file so that it finds `config.target_recall`.

    Returns the index's facts for the manifest: key, parameters, size, recall, milliseconds per
    query. Raises SnapshotError if no parameter is enough. Memory: the index, and what exact search
    holds.
    """
    import faiss

    from index_build.index.tune import make_recall_queries, measure, search_parameter, tune

    path, queries = rows.index_path, make_recall_queries(rows)
    chosen = tune(rows, queries, key, config)
    index = faiss.read_index(str(path)) if chosen else None
    if chosen and search_parameter(index) != chosen:
        faiss.ParameterSpace().set_index_parameter(index, *chosen)
        _write(index, path)
    del index
    return {
        "key": key,
        "parameters": f"{chosen[0]}={chosen[1]}" if chosen else "",
        "rerank": config.rerank,
        "bytes": path.stat().st_size,
        "sha256": digest_file(path),
        "measured": measure(rows, queries, config.rerank),
    }


def can_add(path: Path) -> bool:
    """Return whether rows can be added to an index on disk: to flat, HNSW and inverted-file ones.

    If rows were removed, rebuild the index: the ids of all later rows change, and only a flat
    index, which takes no time to build, can shift them.
    """
    import faiss

    index = _read(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    if isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return isinstance(index, faiss.IndexFlat | faiss.IndexHNSW | faiss.IndexIVF)


def add_rows(old: Path, start: int, blocks: Iterable[tuple[int, np.ndarray]], new: Path) -> None:
    """Write `new`: the index `old`, which holds rows [0, start), and the rows of `blocks`.

    `blocks` yields (first memory_id, (n, D) float32) from `start` on without a gap, as
    `embedding_blocks` does. Centroids and codebooks stay those of the old rows; `tune_index`
    measures the recall that this costs. `new` is written atomically. Raises SnapshotError.
    Memory: the index and a block.
    """
    index = _read(old, 0)
    if index.ntotal != start:
        raise SnapshotError(f"{old}: has {index.ntotal} rows, expected {start}. Build it again.")
    for first, rows in blocks:
        if first != index.ntotal:
            raise SnapshotError(f"{new}: got row {first} to add, expected row {index.ntotal}.")
        index.add(rows)
    _write(index, new)


def pick_key(rows: int, dim: int, memory_bytes: float) -> str | None:
    """Return a faiss factory string for `rows` within `memory_bytes`; None: let autofaiss choose.

    Autofaiss chooses well for small memories, and if even one byte per number is too much (OPQ
    and PQ). In between it would choose PQ too, whose training takes hours instead of SQ8's
    minutes, and whose recall is lower. Clusters: the power of two nearest to 4 * sqrt(rows), up to
    65,536.
    """
    if rows * dim * 4 <= min(LARGE, memory_bytes):
        return None
    clusters = min(2 ** round(math.log2(4 * math.sqrt(rows))), 65_536)
    # With many thousand clusters, finding a row's cluster costs more than the rest of the search.
    inverted = f"IVF{clusters}_HNSW32" if clusters > 8192 else f"IVF{clusters}"
    for name, row_bytes in (("Flat", 4 * dim), ("SQ8", dim)):
        if rows * (row_bytes + ROW_ID) + clusters * (4 * dim + 256) <= memory_bytes:
            return f"{inverted},{name}"
    return None


def _build(rows: Snapshot, config: IndexConfig, spark_master: str) -> str:
    """Build the index -> its key. Raises SnapshotError, also if it exceeds its memory."""
    memory = config.memory_gb * 2**30
    spark = config.distributed == "pyspark"
    key = config.key or (None if spark else pick_key(rows.rows, rows.dim, memory))
    by_autofaiss = key is None or AUTOFAISS.fullmatch(key)
    rows.index_path.unlink(missing_ok=True)
    try:
        if spark:
            key = _by_spark(rows, key, memory, spark_master)
        elif by_autofaiss:
            key = _by_autofaiss(rows, key, memory)
        else:
            key = _by_faiss(rows, str(key), memory)
    except (RuntimeError, ValueError) as error:  # faiss' and autofaiss' own errors
        raise SnapshotError(
            f"{rows.path}: no index {key or ''} was built ({_reason(error)}). The embeddings are "
            "kept. Correct `index.key` or raise `index.memory_gb`, then run the same command again."
        ) from error
    size = rows.index_path.stat().st_size
    if size > memory:
        rows.index_path.unlink()
        raise SnapshotError(
            f"{rows.path}: the index {key} takes {size / 2**30:.2g} GiB, more than "
            f"`index.memory_gb` {config.memory_gb:g}. The embeddings are kept. Raise it or name a "
            "smaller `index.key`, then run the same command again."
        )
    return key


def _by_spark(rows: Snapshot, key: str | None, memory: float, master: str) -> str:
    """Train on this machine, add a share of the rows on each Spark executor, merge here."""
    scratch = rows.path.with_name(f"{rows.path.name}.spark")  # executors must see it too
    remove_folder(scratch)
    with spark_session(master, {}):
        key = _by_autofaiss(
            rows, key, memory, distributed="pyspark", temporary_indices_folder=str(scratch)
        )
    remove_folder(scratch)
    return key


def _by_autofaiss(rows: Snapshot, key: str | None, memory: float, **distribution: str) -> str:
    """Let autofaiss choose and build the index. Its own tuning, for speed alone, is skipped."""
    from autofaiss import build_index as autofaiss_build

    scratch = rows.path.with_name(f"{rows.path.name}.autofaiss.json")
    bars = contextlib.redirect_stderr(io.StringIO())  # which cannot be switched off
    with bars, without_patterns(rows.path.parent) as parent:
        folder = parent / rows.path.name
        index, _ = autofaiss_build(
            embeddings=str(folder / rows.shards[0].embeddings.parent.name),
            index_path=str(folder / rows.index_path.name),
            index_infos_path=str(parent / scratch.name),
            metric_type="ip",
            index_key=key,
            index_param="",
            max_index_memory_usage=f"{int(memory)}B",
            current_memory_available=f"{int(2 * memory)}B",
            should_be_memory_mappable=rows.rows * rows.dim * 4 > LARGE,
            nb_cores=os.cpu_count(),
            verbose=logging.CRITICAL,
            **distribution,
        )
    if index is None or not rows.index_path.exists():
        # autofaiss logs the error and returns None
        raise ValueError(f"autofaiss gives up within {memory / 2**30:g} GiB")
    infos = json.loads(scratch.read_text())
    scratch.unlink()
    fsync_file(rows.index_path)
    return str(infos["index_key"])


def _by_faiss(rows: Snapshot, key: str, memory: float) -> str:
    """Build keys that autofaiss refuses (SQ8) or misreads (IVF65536_HNSW32,SQ8)."""
    import faiss

    from xmore.memory.search import inverted_file

    index = faiss.index_factory(rows.dim, key, faiss.METRIC_INNER_PRODUCT)
    ivf = inverted_file(index)
    enough = TRAINING_ROWS * (ivf.nlist if ivf else 1000)
    sample = int(min(enough, rows.rows, memory // (4 * rows.dim)))
    if not index.is_trained:
        chosen = np.random.default_rng(0).choice(rows.rows, sample, replace=False)
        index.train(embeddings_of(rows, np.sort(chosen)))
    with counting("index adding", rows.rows, "row") as done:
        for first, block in embedding_blocks(rows):
            index.add(block)
            done(first + len(block))
    _write(index, rows.index_path)
    return key


def _reason(error: Exception) -> str:
    """Return faiss' message without the place in its source that raised it."""
    return re.split(r"failed: |\.cpp:\d+: ", str(error))[-1].strip()


def unpublished(folder: Path, kind: Kind = "image") -> Snapshot:
    """Open a folder of embeddings and metadata without a manifest as a snapshot.

    Raises SnapshotError if it has no embeddings of that kind.
    """
    first = min((folder / "img_emb").glob("*.npy"))
    dim = np.load(first, mmap_mode="r").shape[1]
    shards = tuple(read_shards(folder, dim))
    facts = {"rows": sum(shard.rows for shard in shards), "dim": dim}
    seen = seen_by(Snapshot(folder, folder.name, facts, shards), kind)
    if seen is None:
        raise SnapshotError(
            f"{folder}: not every shard has text embeddings as wide as its images', so "
            "`index.text: true` has nothing to index. Nothing was published. Remove the key, or "
            "embed the memory with a model that has a text tower."
        )
    return seen


def _read(path: Path, flags: int) -> Any:
    import faiss

    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise SnapshotError(f"{path}: not a readable index. Build the memory again.") from error


def _write(index: Any, path: Path) -> None:
    """Write an index atomically. Raises SnapshotError if the disk is full."""
    import faiss

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        faiss.write_index(index, str(temporary))
    except RuntimeError as error:
        temporary.unlink(missing_ok=True)
        why = str(error).rpartition(": ")[2]
        raise SnapshotError(f"{path}: cannot be written ({why}). Free disk space.") from error
    fsync_file(temporary)
    os.replace(temporary, path)
    fsync_dir(path.parent)
