"""`captions`: the captions of the candidates that are kept, ranked in the fine model's space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.stage import Workspace, stage
from xmore.config.retrieval import RetrievalConfig
from xmore.memory.captions import coarse_rank, fine_similarities, rank, usable
from xmore.memory.rows import captions_of
from xmore.memory.snapshot import Snapshot
from xmore.models.spec import ModelCard
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows


@dataclass(frozen=True)
class FineModel:
    """The fine model and the queries' features under it."""

    model: ModelCard
    embeddings: ArtifactRef


@stage("captions {candidates.dataset}")
def captions(
    work: Workspace,
    candidates: ArtifactRef,
    memory: Snapshot,
    fine: FineModel,
    retrieval: RetrievalConfig,
) -> ArtifactRef:
    """Read `candidates`, the memory's captions and the fine features -> the best M captions.

    M is the config's largest. Each distinct caption is encoded only once, for all runs.
    """
    m = max(retrieval.captions)
    params: dict[str, Any] = {"m": m, "deduplicate": retrieval.deduplicate, "fine": retrieval.fine}
    inputs = [candidates.digest]
    if retrieval.fine == "direct":
        params["model"] = fine.model.identity
        inputs.append(fine.embeddings.digest)
        if not retrieval.normalise_texts:
            params["texts"] = "not normalised"
    key = ArtifactKey("captions", candidates.dataset, params, tuple(inputs), fine.model.name)
    found = work.store.find(key)
    if found:
        return found

    from tasks.texts import TextEncoder

    encoder = TextEncoder(work, fine.model)

    def make_part(start: int, stop: int) -> pa.Table:
        part = _read_candidates(candidates, memory, start, stop)
        keep = usable(part.codes, retrieval.deduplicate)
        if retrieval.fine == "direct" and part.texts:
            features = encoder.features(part.texts)
            rows = read_rows(fine.embeddings, start, stop, ["embedding"])
            queries = schemas.to_matrix(rows["embedding"])
            texts = features.unit
            if not retrieval.normalise_texts:
                texts = texts * features.norm[:, None]
            similarities = fine_similarities(queries, texts, part.codes)
            chosen, present = rank(similarities, keep, m)
            cut = features.truncated[np.take_along_axis(part.codes, chosen, 1)] & present
        else:
            similarities = part.similarities
            chosen, present = coarse_rank(keep, m)
            cut = np.zeros_like(present)
        return _table(part, similarities, chosen, present, cut.sum(1))

    return work.store.write(key, split_rows(candidates.rows, work.execution.part_rows), make_part)


@dataclass(frozen=True)
class _Part:
    """Candidates of Q queries as matrices; -1, None and NaN fill rows of fewer than K."""

    query_id: pa.ChunkedArray
    memory_ids: np.ndarray  # (Q, K) int64
    memory_keys: np.ndarray  # (Q, K) object
    similarities: np.ndarray  # (Q, K) float32
    codes: np.ndarray  # (Q, K) int64 into texts, -1 for an empty or absent caption
    texts: list[str]  # distinct


def _read_candidates(ref: ArtifactRef, memory: Snapshot, start: int, stop: int) -> _Part:
    rows = read_rows(ref, start, stop)
    flat_ids, lengths = schemas.to_ragged(rows["memory_ids"])
    present = np.arange(lengths.max(initial=1)) < lengths[:, None]
    caption = captions_of(memory, flat_ids)
    blank = pc.equal(pc.utf8_trim_whitespace(caption), "")
    encoded = pc.if_else(blank, None, caption).combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    keys, _ = schemas.to_ragged(rows["memory_keys"])
    similarities, _ = schemas.to_ragged(rows["similarities"])
    return _Part(
        rows["query_id"],
        _padded(flat_ids, present, -1),
        _padded(keys, present, None),
        _padded(similarities, present, np.nan),
        _padded(codes.astype(np.int64), present, -1),
        encoded.dictionary.to_pylist(),
    )


def _padded(flat: np.ndarray, present: np.ndarray, filler: object) -> np.ndarray:
    matrix = np.full(present.shape, filler, flat.dtype)
    matrix[present] = flat
    return matrix


def _table(
    part: _Part, similarities: np.ndarray, chosen: np.ndarray, present: np.ndarray, cut: np.ndarray
) -> pa.Table:
    def kept(values: np.ndarray, kind: pa.DataType) -> pa.ListArray:
        return schemas.lists(np.take_along_axis(values, chosen, 1), present, kind)

    texts = np.array([*part.texts, ""], object)[part.codes]  # code -1 takes the last
    return pa.table(
        {
            "query_id": part.query_id,
            "memory_ids": kept(part.memory_ids, pa.int64()),
            "memory_keys": kept(part.memory_keys, pa.string()),
            "captions": kept(texts, pa.string()),
            "similarities": kept(similarities, pa.float32()),
            "truncated_count": cut,
        },
        schema=schemas.CAPTIONS,
    )
