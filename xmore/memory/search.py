"""Coarse retrieval: the K nearest memory images of each query (paper section 3.1, step 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmore.files.errors import SnapshotError
from xmore.memory.rows import ALIGN, embedding_blocks, embeddings_of
from xmore.memory.snapshot import Snapshot

RERANK_BYTES = 64 << 20  # of candidates' embeddings held at a time


@dataclass(frozen=True)
class Neighbours:
    """K neighbours of Q queries, best first; ties go to the lower memory_id."""

    ids: np.ndarray  # (Q, K) int64, -1 = none
    similarities: np.ndarray  # (Q, K) float32, NaN = none


def exact_search(
    queries: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], k: int, device: str = "cpu"
) -> Neighbours:
    """Top-K by inner product: (Q, D) float32 unit rows against a streamed memory.

    `blocks` yields (first memory_id, (n, D) float32), ids rising. Holds Q x (n + 2K) similarities:
    the caller bounds Q and n. A memory of fewer than K rows gives what it has. Equal rows have
    equal similarities: the BLAS adds up the last columns of a product in another order than the
    others, so each block is filled up to a multiple of ALIGN rows, where it has no such columns.
    """
    q = torch.tensor(queries, device=device)  # a copy: Arrow's buffers are read-only
    values = torch.full((len(q), k), -torch.inf, device=device)
    ids = torch.full((len(q), k), -1, dtype=torch.int64, device=device)
    for first, rows in blocks:
        whole = np.pad(rows, ((0, -len(rows) % ALIGN), (0, 0))) if len(rows) % ALIGN else rows
        similarities = (q @ torch.from_numpy(whole).to(device).T)[:, : len(rows)]
        block_values, block_ids = _block_top_k(similarities, k)
        # Stable, and both sides are ordered: equal similarities keep the lower id first.
        merged, order = torch.cat([values, block_values], 1).sort(
            dim=1, descending=True, stable=True
        )
        values = merged[:, :k]
        ids = torch.cat([ids, block_ids + first], 1).gather(1, order[:, :k])
    found = torch.isfinite(values)
    return Neighbours(
        torch.where(found, ids, -1).cpu().numpy(),
        torch.where(found, values, torch.nan).cpu().numpy(),
    )


@dataclass(frozen=True)
class Depth:
    """How deep to search an index: K neighbours of a query, out of `factor` times K candidates.

    A factor above 1 lets exact inner products with the stored embeddings decide among them.
    """

    k: int
    factor: int = 1


def index_search(queries: np.ndarray, snapshot: Snapshot, depth: Depth) -> Neighbours:
    """Top-K by the snapshot's index: (Q, D) float32 unit rows; raises SnapshotError."""
    index = open_index(snapshot.index_path, snapshot.rows, snapshot.dim)
    return search_opened(index, queries, snapshot, depth)


@dataclass(frozen=True)
class Searcher:
    """Looks for rows of a memory, exactly or by its index."""

    rows: Snapshot
    exact: bool
    factor: int = 1  # of `Depth`, where the index is searched
    device: str = "cpu"

    def __call__(self, queries: np.ndarray, k: int) -> Neighbours:
        """(Q, D) float32 unit rows -> the K nearest rows; see `exact_search`."""
        if self.exact:
            return exact_search(queries, embedding_blocks(self.rows), k, self.device)
        return index_search(queries, self.rows, Depth(k, self.factor))

    @property
    def index_sha256(self) -> str | None:
        """Of the index that decides what is found; None: none does."""
        return None if self.exact else (self.rows.index or {})["sha256"]


def search_opened(index: Any, queries: np.ndarray, snapshot: Snapshot, depth: Depth) -> Neighbours:
    """`index_search` in an index that is open already, with the parameters that it has."""
    wanted = depth.k * depth.factor
    values, ids = index.search(np.ascontiguousarray(queries), min(wanted, index.ntotal))
    values = np.where(ids < 0, -np.inf, values)
    found = _ranked(ids.astype(np.int64), values.astype(np.float32), wanted)
    if depth.factor == 1:
        return found
    return rerank(queries, found.ids, depth.k, partial(embeddings_of, snapshot))


def rerank(
    queries: np.ndarray, ids: np.ndarray, k: int, rows_of: Callable[[np.ndarray], np.ndarray]
) -> Neighbours:
    """The K of each query's candidates with the highest exact inner products.

    (Q, D) float32, (Q, N) int64 memory_ids (-1 = none); `rows_of` turns rising ids into (n, D)
    float32. Ties go to the lower memory_id. Memory: RERANK_BYTES, three times over.
    """
    parts = []
    step = max(1, RERANK_BYTES // (4 * max(ids.shape[1] * queries.shape[1], 1)))
    for first in range(0, len(queries), step):
        some = ids[first : first + step]
        query, place = np.nonzero(some >= 0)
        distinct, inverse = np.unique(some[query, place], return_inverse=True)
        rows = rows_of(distinct)[inverse]
        values = np.full(some.shape, -np.inf, np.float32)
        # Row by row, so that equal rows have equal similarities: see `exact_search`.
        values[query, place] = np.einsum("nd,nd->n", rows, queries[first + query])
        parts.append(_ranked(some, values, k))
    return Neighbours(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.similarities for part in parts]),
    )


def _ranked(ids: np.ndarray, values: np.ndarray, k: int) -> Neighbours:
    """The best K of each row, then the lower id; -inf and -1 where none, (Q, N) each."""
    order = np.lexsort((ids, -values), axis=1)[:, :k]
    values, ids = np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)
    padding = ((0, 0), (0, k - ids.shape[1]))
    ids = np.pad(ids, padding, constant_values=-1)
    values = np.pad(values, padding, constant_values=-np.inf)
    return Neighbours(ids, np.where(ids < 0, np.float32(np.nan), values))


def open_index(path: Path, rows: int, dim: int) -> Any:
    """A faiss index on disk, memory-mapped: only what a search touches is read.

    Raises SnapshotError where it cannot be read or is not over `rows` rows of `dim`.
    """
    import faiss

    try:
        with path.open("rb") as stream:
            kind = stream.read(3)
        # Two ways of mapping: one for flat and HNSW indices, one for inverted lists.
        whole = kind in (b"IxF", b"IHN")
        mapped = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if whole else mapped)
        cut_short = _mapped_bytes(index) > path.stat().st_size
    except (RuntimeError, OSError) as error:
        raise SnapshotError(f"{path}: not a readable index. Build the memory again.") from error
    if cut_short:
        raise SnapshotError(f"{path}: not a readable index, cut short. Build the memory again.")
    if (index.ntotal, index.d) != (rows, dim):
        raise SnapshotError(
            f"{path}: holds {index.ntotal} rows of {index.d} dimensions, wanted {rows} of "
            f"{dim}. Build the memory again, or set `retrieval.search: exact`."
        )
    return index


def inverted_file(index: Any) -> Any | None:
    """The IVF in a faiss index, whatever is before it; None where there is none."""
    import faiss

    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:
        return None


def _mapped_bytes(index: Any) -> int:
    """How long the file of mapped inverted lists must be: faiss would read on past its end."""
    import faiss

    ivf = inverted_file(index)
    lists = faiss.downcast_InvertedLists(ivf.invlists) if ivf else None
    if not isinstance(lists, faiss.OnDiskInvertedLists):
        return 0
    return max(
        (one.offset + one.capacity * (lists.code_size + 8))  # 8: a row's id
        for one in map(lists.lists.at, range(lists.nlist))
    )


def recall(found: Neighbours, truth: Neighbours) -> float:
    """The share of the true neighbours that were found, over all queries."""
    hits = sum(
        np.intersect1d(a[a >= 0], b[b >= 0]).size for a, b in zip(found.ids, truth.ids, strict=True)
    )
    return hits / max(int((truth.ids >= 0).sum()), 1)


def _block_top_k(similarities: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Top min(k, n) of each row of (Q, n), by similarity, then by the lower column."""
    n = similarities.shape[1]
    if n <= k:
        return similarities.sort(dim=1, descending=True, stable=True)
    values, columns = similarities.topk(k + 1, 1)
    # topk breaks ties as it likes: where the cut goes through a tie, sort the whole row.
    tied = (values[:, k] == values[:, k - 1]).nonzero()[:, 0]
    columns = columns[:, :k].sort(1).values
    if len(tied):
        whole = similarities[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
        columns[tied] = whole.sort(1).values
    values, order = similarities.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
