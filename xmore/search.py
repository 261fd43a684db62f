"""Coarse retrieval: the K nearest memory images of each query (paper section 3.1, step 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xmore.errors import SnapshotError


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
    the caller bounds Q and n. A memory of fewer than K rows gives what it has.
    """
    q = torch.tensor(queries, device=device)  # a copy: Arrow's buffers are read-only
    values = torch.full((len(q), k), -torch.inf, device=device)
    ids = torch.full((len(q), k), -1, dtype=torch.int64, device=device)
    for first, rows in blocks:
        block_values, block_ids = _block_top_k(q @ torch.from_numpy(rows).to(device).T, k)
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


def index_search(queries: np.ndarray, index_path: Path, k: int, rows: int) -> Neighbours:
    """Top-K from a faiss index on disk over `rows` rows; raises SnapshotError as `open_index`."""
    index = open_index(index_path, rows, queries.shape[1])
    values, ids = index.search(np.ascontiguousarray(queries), min(k, index.ntotal))
    order = np.lexsort((ids, -values), axis=1)
    values, ids = np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)
    padding = ((0, 0), (0, k - ids.shape[1]))
    ids = np.pad(ids.astype(np.int64), padding, constant_values=-1)
    values = np.pad(values.astype(np.float32), padding, constant_values=np.nan)
    return Neighbours(ids, np.where(ids < 0, np.float32(np.nan), values))


def open_index(path: Path, rows: int, dim: int) -> Any:
    """A faiss index on disk, memory-mapped where its type allows it.

    Raises SnapshotError where it cannot be read or is not over `rows` rows of `dim`.
    """
    import faiss

    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise SnapshotError(f"{path}: not a readable index. Build the memory again.") from error
    if (index.ntotal, index.d) != (rows, dim):
        raise SnapshotError(
            f"{path}: holds {index.ntotal} rows of {index.d} dimensions, wanted {rows} of "
            f"{dim}. Build the memory again, or set `retrieval.search: exact`."
        )
    return index


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
