"""Which rows of a memory RECO trains on, which it is measured on, and what lies next to each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmore.files.errors import SnapshotError
from xmore.files.progress import track
from xmore.memory.cost import exact_is_affordable
from xmore.memory.rows import embeddings_of, rows_of_shard
from xmore.memory.search import Searcher
from xmore.memory.snapshot import Kind, Snapshot, seen_by

MOST_HELD_OUT = 2000  # rows; retrieval among them compares each with each
LOOK = 1024  # nearest rows that are looked at for k that count
CHUNK = 512  # rows whose neighbours are looked for at a time
PAIR_BYTES = 64 << 20  # of candidates' embeddings held at a time


@dataclass(frozen=True)
class JointMemory:
    """A snapshot's rows by their images and by their texts, in one space."""

    image: Snapshot
    text: Snapshot

    def of(self, kind: str) -> Snapshot:
        return self.image if kind == "image" else self.text

    def other(self, kind: str) -> Snapshot:
        return self.text if kind == "image" else self.image

    def searched(self, side: str, search: str) -> Snapshot:
        """Where the neighbours of a side's query are looked for."""
        return self.of(side) if search == "uni-modal" else self.other(side)


def joint_memory(snapshot: Snapshot, model: str, identity: dict[str, Any]) -> JointMemory:
    """Both views of a snapshot that the model of that name and identity has embedded.

    Raises SnapshotError for any other.
    """
    theirs = snapshot.manifest["model"]
    if theirs is None:
        raise SnapshotError(
            f"{snapshot.path}: names no model, and RECO needs one that has embedded its images and "
            "captions. Build a memory of ours from it: `sources: [clip_retrieval: ...]`."
        )
    if theirs["identity"] != identity:
        raise SnapshotError(
            f"{snapshot.path}: was embedded by `{theirs['name']}`, which is not `{model}`: "
            "RECO works in one model's space. Name that model, or a memory embedded by this one."
        )
    texts = seen_by(snapshot, "text")
    if texts is None:
        raise SnapshotError(
            f"{snapshot.path}: has no embeddings of its captions, which RECO fuses. Embed it with "
            "a model that has a text tower."
        )
    return JointMemory(snapshot, texts)


def fused_rows(memory: JointMemory, side: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a side fuses of its (B, K) neighbours: (B, K, D) float32, and where there is none.

    These are embeddings of the other modality; zeros where there is none.
    """
    missing = ids < 0
    rows = np.zeros((*ids.shape, memory.image.dim), np.float32)
    distinct, inverse = np.unique(ids[~missing], return_inverse=True)
    rows[~missing] = embeddings_of(memory.other(side), distinct)[inverse]
    return rows, missing


def searcher(rows: Snapshot, queries: int, scans: int, device: str = "cpu") -> Searcher:
    """Exact while that is affordable for so many queries, else by the view's index.

    Raises SnapshotError where neither will do.
    """
    exact = exact_is_affordable(queries, rows.rows, rows.dim, scans)
    if not exact and rows.index is None:
        kind: Kind = rows.kind
        raise SnapshotError(
            f"{rows.path}: is too large for exact search and has no {kind}.index. Set `index.text: "
            "true` in the memory's config and run `xmore reindex`; its embeddings are kept."
        )
    return Searcher(rows, exact, (rows.index or {}).get("rerank", 1), device)


@dataclass(frozen=True)
class Split:
    """What each row of a memory is to a training: 9 bytes a row."""

    captions: np.ndarray  # (N,) uint64, equal for equal captions
    bank: np.ndarray  # (N,) bool: may be a neighbour; neither held out nor without a caption
    held_out: np.ndarray  # (n,) int64 memory_ids, rising: the first row of each such caption


def split_rows(snapshot: Snapshot, share: float, seed: int) -> Split:
    """Hold out a share of the captions by a hash of each, MOST_HELD_OUT at most.

    All rows of a held-out caption leave the bank, and one of them is measured. Streams captions.
    """
    captions = np.empty(snapshot.rows, np.uint64)
    empty = np.zeros(snapshot.rows, bool)
    for shard in track(snapshot.shards, "reco reading captions", "shard"):
        for place, (_, caption) in enumerate(rows_of_shard(snapshot, shard), shard.start):
            digest = hashlib.sha256(f"{seed}\n{caption}".encode("utf-8", "surrogatepass")).digest()
            captions[place] = int.from_bytes(digest[:8], "big")
            empty[place] = not caption
    distinct, firsts = np.unique(captions[~empty], return_index=True)  # in the order of the hashes
    count = min(MOST_HELD_OUT, round(share * len(distinct)))
    if count < 2 or len(distinct) - count < 2:
        raise SnapshotError(
            f"{snapshot.path}: {len(distinct)} distinct captions, of which {count} would be held "
            "out: RECO needs at least two to train on and two to measure. Change `held_out`."
        )
    bank = ~empty & (captions > distinct[count - 1])
    return Split(captions, bank, np.sort(np.flatnonzero(~empty)[firsts[:count]]))


def twin_searchers(memory: JointMemory, device: str) -> list[Searcher]:
    """How near duplicates of held-out rows are looked for. Raises SnapshotError."""
    scans = -(-MOST_HELD_OUT // CHUNK)
    return [searcher(rows, MOST_HELD_OUT, scans, device) for rows in (memory.image, memory.text)]


def near(searchers: list[Searcher], ids: np.ndarray, least: float) -> np.ndarray:
    """Rows as similar as `least` to one of `ids` in what a searcher looks at: memory_ids, rising.

    The LOOK nearest of each are looked at.
    """
    found = [np.zeros(0, np.int64)]
    for search in searchers:
        for start in range(0, len(ids), CHUNK):
            queries = embeddings_of(search.rows, ids[start : start + CHUNK])
            nearest = search(queries, min(LOOK, search.rows.rows))
            found.append(nearest.ids[nearest.similarities >= least])
    return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Neighbourhood:
    """How the neighbours of a side's rows are found."""

    memory: JointMemory
    split: Split
    search: Searcher
    k: int
    duplicates: float

    def of(self, side: str, ids: np.ndarray) -> np.ndarray:
        """(n,) memory_ids -> (n, k) int64, the best first, -1 where there are no more.

        Neighbours are rows of the bank, with another caption, neither of whose embeddings is a
        near duplicate of the row's own. Of each row the LOOK nearest are looked at. Memory: what
        exact search of CHUNK queries holds.
        """
        rows = [self._of_chunk(side, ids[i : i + CHUNK]) for i in range(0, len(ids), CHUNK)]
        return np.concatenate([np.zeros((0, self.k), np.int64), *rows])

    def _of_chunk(self, side: str, ids: np.ndarray) -> np.ndarray:
        queries = embeddings_of(self.memory.of(side), ids)
        found = np.full((len(ids), self.k), -1)
        todo, depth, most = np.arange(len(ids)), 4 * self.k, min(LOOK, self.memory.image.rows)
        while len(todo):
            depth = min(depth, most)
            nearest = self.search(queries[todo], depth).ids
            good = self._allowed(ids[todo], nearest)
            rank = np.cumsum(good, 1) - 1
            row, column = np.nonzero(good & (rank < self.k))
            found[todo[row], rank[row, column]] = nearest[row, column]
            todo = todo[good.sum(1) < self.k] if depth < most else todo[:0]
            depth *= 4
        return found

    def _allowed(self, ids: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Which of (n, m) candidates may be neighbours of (n,) rows: (n, m) bool."""
        captions = self.split.captions
        allowed = (nearest >= 0) & self.split.bank[nearest]
        allowed &= captions[nearest] != captions[ids][:, None]
        row, column = np.nonzero(allowed)
        step = max(1, PAIR_BYTES // (8 * self.memory.image.dim))
        for start in range(0, len(row), step):
            some = slice(start, start + step)
            pairs = ids[row[some]], nearest[row[some], column[some]]
            twins = self._similarity("image", *pairs) >= self.duplicates
            twins |= self._similarity("text", *pairs) >= self.duplicates
            allowed[row[some], column[some]] = ~twins
        return allowed

    def _similarity(self, kind: str, ids: np.ndarray, others: np.ndarray) -> np.ndarray:
        rows = []
        for wanted in (ids, others):
            distinct, inverse = np.unique(wanted, return_inverse=True)
            rows.append(embeddings_of(self.memory.of(kind), distinct)[inverse])
        return np.einsum("nd,nd->n", *rows)


def searchers(
    memory: JointMemory, sides: Sequence[str], search: str, device: str
) -> dict[str, Searcher]:
    """How each refined side looks for its rows' neighbours. Raises SnapshotError."""
    rows = {side: memory.searched(side, search) for side in sides}
    scans = -(-memory.image.rows // CHUNK)
    return {side: searcher(view, view.rows, scans, device) for side, view in rows.items()}
