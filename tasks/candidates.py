"""`candidates`: the K nearest memory images of each query, in the coarse model's space."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore.config.retrieval import RetrievalConfig
from xmore.files.errors import SnapshotError
from xmore.memory.cost import exact_is_affordable
from xmore.memory.rows import keys_of
from xmore.memory.snapshot import Snapshot
from xmore.models.spec import ModelCard, same_space
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows

if TYPE_CHECKING:
    from xmore.memory.search import Searcher

RECALL_QUERIES = 256  # real queries on which the index is compared with exact search


@stage("candidates {embeddings.dataset}")
def candidates(
    work: Workspace,
    embeddings: ArtifactRef,
    model: ModelCard,
    memory: Snapshot,
    retrieval: RetrievalConfig,
) -> ArtifactRef:
    """Read the coarse `query_embeddings` and the snapshot -> ranked neighbours.

    `retrieval.search` determines whether search is exact or by the index. If by the index, the
    manifest holds its recall on a sample of the queries, compared with exact search.
    """
    _check_model(memory, model)
    mode = _mode(retrieval, memory, embeddings.rows)
    params = {"k": retrieval.candidates, "search": mode}
    if mode == "index":
        params["index_sha256"] = (memory.index or {})["sha256"]
        params["rerank"] = _rerank(retrieval, memory)
    inputs = (embeddings.digest, memory.digest)
    key = ArtifactKey("candidates", embeddings.dataset, params, inputs, model.name)
    found = work.store.find(key)
    if found:
        return found

    from xmore.memory.scan import Scan
    from xmore.memory.search import Searcher

    search = Searcher(memory, mode == "exact", _rerank(retrieval, memory), work.device)
    scan = Scan(search, retrieval.candidates, embeddings.rows, work.execution.part_rows)

    def read(start: int, stop: int) -> np.ndarray:
        rows = read_rows(embeddings, start, stop, ["embedding"])
        queries = schemas.to_matrix(rows["embedding"])
        if queries.shape[1] != memory.dim:
            raise SnapshotError(
                f"{memory.path}: its embeddings have {memory.dim} dimensions, but those of the "
                f"coarse model `{model.name}` have {queries.shape[1]}. Change `roles.coarse`."
            )
        return queries

    def make_part(start: int, stop: int) -> pa.Table:
        query_id = read_rows(embeddings, start, stop, ["query_id"])["query_id"]
        return _table(query_id, scan(start, stop, read), memory)

    def facts() -> dict[str, Any]:
        if mode == "exact":  # the key does not name an index, which may be built anew
            return {}
        return {"index_recall": _index_recall(embeddings, search, retrieval.candidates)}

    return work.store.write(
        key, split_rows(embeddings.rows, work.execution.part_rows), make_part, facts
    )


def _check_model(memory: Snapshot, model: ModelCard) -> None:
    theirs = memory.manifest["model"]  # None for an adopted folder, which names no model
    if theirs and not same_space(theirs["identity"], model.identity):
        raise SnapshotError(
            f"{memory.path}: its images were embedded by `{theirs['name']}` "
            f"({_weights(theirs['identity'])}), which is not the coarse model `{model.name}` "
            f"({_weights(model.identity)}). Change `roles.coarse` or build the memory."
        )


def _weights(identity: dict[str, Any]) -> str:
    pooled = ", pooled" if identity.get("pooled") else ""
    return f"weights {str(identity.get('weights_sha256'))[:8]}{pooled}"


def _mode(retrieval: RetrievalConfig, memory: Snapshot, queries: int) -> str:
    if retrieval.search == "index" and memory.index is None:
        raise SnapshotError(f"{memory.path}: has no index. Set `retrieval.search: exact`.")
    if retrieval.search != "auto":
        return retrieval.search
    affordable = exact_is_affordable(queries, memory.rows, memory.dim)
    return "exact" if affordable or memory.index is None else "index"


def _rerank(retrieval: RetrievalConfig, memory: Snapshot) -> int:
    """Return the benchmark's own factor, or the one that the index was tuned with."""
    return retrieval.rerank or (memory.index or {}).get("rerank", 1)


def _table(query_id: pa.ChunkedArray, found: Any, memory: Snapshot) -> pa.Table:
    present = found.ids >= 0
    keys = keys_of(memory, found.ids[present])
    ids = schemas.lists(found.ids, present, pa.int64())
    return pa.table(
        {
            "query_id": query_id,
            "memory_ids": ids,
            "memory_keys": pa.ListArray.from_arrays(ids.offsets, keys),
            "similarities": schemas.lists(found.similarities, present, pa.float32()),
        },
        schema=schemas.CANDIDATES,
    )


def _index_recall(embeddings: ArtifactRef, search: Searcher, k: int) -> dict[str, Any] | None:
    """Return recall@k of the index on a sample of real queries.

    None if exact search is not affordable.
    """
    from xmore.memory.search import recall

    memory, count = search.rows, min(RECALL_QUERIES, embeddings.rows)
    affordable = exact_is_affordable(count, memory.rows, memory.dim)
    if memory.index is None or not affordable:
        return None
    sample = np.sort(np.random.default_rng(0).permutation(embeddings.rows)[:count])
    rows = schemas.to_matrix(read_rows(embeddings, columns=["embedding"])["embedding"])[sample]
    by_index, exactly = (replace(search, exact=exact)(rows, k) for exact in (False, True))
    return {
        "index": memory.index["key"],
        "rerank": search.factor,
        "k": k,
        "queries": count,
        "recall": recall(by_index, exactly),
    }
