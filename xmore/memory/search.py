"""Coarse retrieval: the K nearest memory images of each query (paper section 3.1, step 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmore.files.errors import SnapshotError, is_shortage
from xmore.memory.device import DeviceRows
from xmore.memory.rows import ALIGN, embedding_blocks, embeddings_of
from xmore.memory.snapshot import Snapshot

GROUP = 1024  # queries that a block is multiplied by at a time
RERANK_BYTES = 64 << 20  # embeddings of candidates in memory at a time


@dataclass(frozen=True)
class Neighbours:
    """K neighbours of Q queries, best first; ties go to the lower memory_id."""

    ids: np.ndarray  # (Q, K) int64, -1 = none
    similarities: np.ndarray  # (Q, K) float32, NaN = none


def exact_search(
    queries: np.ndarray,
    blocks: Iterable[tuple[int, np.ndarray | torch.Tensor]],
    k: int,
    device: str = "cpu",
    group: int = GROUP,
) -> Neighbours:
    """Find the top K by inner product: (Q, D) float32 unit rows against a streamed memory.

    `blocks` yields (first memory_id, (n, D) float32) with ascending ids, once for all queries. A
    block is multiplied by `group` queries at a time: each group has the very neighbours that a
    search of it alone has. Memory: group x n similarities and Q x (D + 3K) numbers; the caller
    bounds Q and n. If the memory has fewer than K rows, all are returned.
    Equal rows have equal similarities: as BLAS may sum the last columns of a product in another
    order than the others, each block is padded to a multiple of ALIGN rows. Several threads may
    still share the columns unevenly (docs/footguns.md, 11).
    """
    q = torch.tensor(queries, device=device)  # a copy: Arrow's buffers are read-only
    values = torch.full((len(q), k), -torch.inf, device=device)
    ids = torch.full((len(q), k), -1, dtype=torch.int64, device=device)
    groups = [slice(start, start + group) for start in range(0, len(q), group)]
    for first, rows in blocks:
        columns = _padded(torch.as_tensor(rows).to(device)).T
        for some in groups:
            similarities = (q[some] @ columns)[:, : len(rows)]
            _merge(values[some], ids[some], *_block_top_k(similarities, k), first)
    found = torch.isfinite(values)
    return Neighbours(
        torch.where(found, ids, -1).cpu().numpy(),
        torch.where(found, values, torch.nan).cpu().numpy(),
    )


def _padded(rows: torch.Tensor) -> torch.Tensor:
    """Return (n, D) rows, and rows of zeros up to a multiple of ALIGN."""
    missing = -len(rows) % ALIGN
    return torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows


def _merge(
    values: torch.Tensor,
    ids: torch.Tensor,
    block_values: torch.Tensor,
    block_ids: torch.Tensor,
    first: int,
) -> None:
    """Merge a block's best into the (Q, K) best so far, in place; its ids count from `first`."""
    k = values.shape[1]
    # The sort is stable and both inputs are ordered: among ties the lower id stays first.
    merged, order = torch.cat([values, block_values], 1).sort(dim=1, descending=True, stable=True)
    values.copy_(merged[:, :k])
    ids.copy_(torch.cat([ids, block_ids + first], 1).gather(1, order[:, :k]))


@dataclass(frozen=True)
class Depth:
    """The depth of an index search: K neighbours out of `factor` times K candidates.

    With a factor above 1 the candidates are re-ranked by exact inner product with the stored
    embeddings.
    """

    k: int
    factor: int = 1


def index_search(queries: np.ndarray, snapshot: Snapshot, depth: Depth) -> Neighbours:
    """Find the top K of (Q, D) float32 unit rows by the snapshot's index. Raises SnapshotError."""
    index = open_index(snapshot.index_path, snapshot.rows, snapshot.dim)
    return search_opened(index, queries, snapshot, depth)


@dataclass(frozen=True)
class Searcher:
    """Searches a memory, exactly or by its index; a GPU keeps the rows if they fit."""

    rows: Snapshot
    exact: bool
    factor: int = 1  # of `Depth`, if the index is searched
    device: str = "cpu"

    def __call__(self, queries: np.ndarray, k: int) -> Neighbours:
        """Find the K nearest rows of (Q, D) float32 unit rows; see `exact_search`."""
        if self.exact:
            return exact_search(queries, self.blocks, k, self.device)
        return index_search(queries, self.rows, Depth(k, self.factor))

    @property
    def blocks(self) -> Iterable[tuple[int, np.ndarray | torch.Tensor]]:
        """The memory's rows in blocks of float32, on the device."""
        return embedding_blocks(self.rows) if self.device == "cpu" else self._on_device

    @cached_property
    def _on_device(self) -> DeviceRows:
        return DeviceRows(self.rows, torch.device(self.device))

    @property
    def index_sha256(self) -> str | None:
        """The sha256 of the index that is searched; None for exact search."""
        return None if self.exact else (self.rows.index or {})["sha256"]


def search_opened(index: Any, queries: np.ndarray, snapshot: Snapshot, depth: Depth) -> Neighbours:
    """Search an open index with its current parameters; see `index_search`."""
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
    """Return the K candidates of each query with the highest exact inner products.

    `queries` are (Q, D) float32, `ids` (Q, N) int64 memory_ids (-1 = none); `rows_of` maps
    ascending ids to (n, D) float32. Ties go to the lower memory_id. Memory: three times
    RERANK_BYTES.
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
    """Return the best K of each row of (Q, N); ties go to the lower id, missing ones are -1."""
    order = np.lexsort((ids, -values), axis=1)[:, :k]
    values, ids = np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)
    padding = ((0, 0), (0, k - ids.shape[1]))
    ids = np.pad(ids, padding, constant_values=-1)
    values = np.pad(values, padding, constant_values=-np.inf)
    return Neighbours(ids, np.where(ids < 0, np.float32(np.nan), values))


def open_index(path: Path, rows: int, dim: int) -> Any:
    """Memory-map a faiss index on disk, so that a search reads only the pages that it needs.

    Raises SnapshotError if it cannot be read or does not have `rows` rows of `dim` dimensions.
    """
    import faiss

    try:
        with path.open("rb") as stream:
            kind = stream.read(3)
        # faiss maps flat and HNSW indices in one way, inverted lists in another.
        flat = kind in (b"IxF", b"IHN")
        mapped = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if flat else mapped)
        cut_short = _mapped_bytes(index) > path.stat().st_size
    except (RuntimeError, OSError) as error:
        if is_shortage(error):
            raise
        raise SnapshotError(f"{path}: not a readable index. Build the memory again.") from error
    if cut_short:
        raise SnapshotError(
            f"{path}: not a readable index, it is cut short. Build the memory again."
        )
    if (index.ntotal, index.d) != (rows, dim):
        raise SnapshotError(
            f"{path}: has {index.ntotal} rows of {index.d} dimensions, expected {rows} of "
            f"{dim}. Build the memory again, or set `retrieval.search: exact`."
        )
    return index


def inverted_file(index: Any) -> Any | None:
    """Return the IVF in a faiss index, after any transforms; None if there is none."""
    import faiss

    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:
        return None


def _mapped_bytes(index: Any) -> int:
    """Return the minimum size of a file of mapped inverted lists: faiss would read past its end."""
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
    """Return the share of true neighbours that were found, over all queries."""
    hits = sum(
        np.intersect1d(a[a >= 0], b[b >= 0]).size for a, b in zip(found.ids, truth.ids, strict=True)
    )
    return hits / max(int((truth.ids >= 0).sum()), 1)


def _block_top_k(similarities: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the top min(k, n) of each row of (Q, n), values and columns; ties: lower column."""
    n = similarities.shape[1]
    if n <= k:
        return similarities.sort(dim=1, descending=True, stable=True)
    values, columns = similarities.topk(k + 1, 1)
    # topk breaks ties arbitrarily: if the cut goes through a tie, sort the complete row.
    tied = (values[:, k] == values[:, k - 1]).nonzero()[:, 0]
    columns = columns[:, :k].sort(1).values
    if len(tied):
        ordered = similarities[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
        columns[tied] = ordered.sort(1).values
    values, order = similarities.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
