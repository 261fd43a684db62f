"""The memory rows for RECO's training and evaluation, and the neighbours of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmore.files.errors import SnapshotError
from xmore.files.progress import track
from xmore.memory.allowed import LOOK, nearest_allowed
from xmore.memory.cost import exact_is_affordable
from xmore.memory.rows import embeddings_of, rows_of_shard
from xmore.memory.search import Searcher
from xmore.memory.snapshot import Kind, Snapshot, seen_by
from xmore.models.spec import same_space

MOST_HELD_OUT = 2000  # rows; retrieval compares each with each
CHUNK = 512  # rows whose neighbours are searched at a time
PAIR_BYTES = 64 << 20  # embeddings of candidates in memory at a time


@dataclass(frozen=True)
class JointMemory:
    """A snapshot's image rows and text rows, in one embedding space."""

    image: Snapshot
    text: Snapshot

    def of(self, kind: str) -> Snapshot:
        return self.image if kind == "image" else self.text

    def other(self, kind: str) -> Snapshot:
        return self.text if kind == "image" else self.image

    def searched(self, side: str, search: str) -> Snapshot:
        """Return the rows among which a modality's neighbours are searched."""
        return self.of(side) if search == "uni-modal" else self.other(side)


def joint_memory(snapshot: Snapshot, model: str, identity: dict[str, Any]) -> JointMemory:
    """Return the image rows and text rows of a snapshot embedded by the given model.

    Raises SnapshotError if it was embedded by another model or has no text embeddings.
    """
    theirs = snapshot.manifest["model"]
    if theirs is None:
        raise SnapshotError(
            f"{snapshot.path}: names no model, but RECO needs the model that embedded its images "
            "and captions. Build a memory from it with `sources: [clip_retrieval: ...]`."
        )
    if not same_space(theirs["identity"], identity):
        raise SnapshotError(
            f"{snapshot.path}: was embedded by `{theirs['name']}`, which is not `{model}`, but "
            "RECO needs one model's space. Set that model, or a memory embedded by this one."
        )
    texts = seen_by(snapshot, "text")
    if texts is None:
        raise SnapshotError(
            f"{snapshot.path}: has no embeddings of its captions, which RECO needs. Embed it with "
            "a model that has a text tower."
        )
    return JointMemory(snapshot, texts)


def fused_rows(memory: JointMemory, side: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the other modality's embeddings of (B, K) neighbours, and a mask of missing ones.

    These are (B, K, D) float32, zeros if missing, and (B, K) bool.
    """
    missing = ids < 0
    rows = np.zeros((*ids.shape, memory.image.dim), np.float32)
    distinct, inverse = np.unique(ids[~missing], return_inverse=True)
    rows[~missing] = embeddings_of(memory.other(side), distinct)[inverse]
    return rows, missing


def searcher(rows: Snapshot, queries: int, scans: int, device: str = "cpu") -> Searcher:
    """Return an exact searcher if affordable for this many queries, else one by the rows' index.

    Raises SnapshotError if exact search is too expensive and there is no index.
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
    """The role of each row of a memory in a training. Memory: 9 bytes per row."""

    captions: np.ndarray  # (N,) uint64, equal for equal captions
    bank: np.ndarray  # (N,) bool: may be a neighbour; not held out, and has a caption
    held_out: np.ndarray  # (n,) int64 memory_ids, ascending: the first row of each such caption


def split_rows(snapshot: Snapshot, share: float, seed: int) -> Split:
    """Hold out a share of the captions by their hashes, at most MOST_HELD_OUT.

    All rows of a held-out caption leave the bank; one of them is evaluated. Streams the captions.
    Raises SnapshotError if there are too few.
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
            "out, but RECO needs at least two to train on and two to evaluate. Change `held_out`."
        )
    bank = ~empty & (captions > distinct[count - 1])
    return Split(captions, bank, np.sort(np.flatnonzero(~empty)[firsts[:count]]))


def duplicate_searchers(memory: JointMemory, device: str) -> list[Searcher]:
    """Return the searchers of near duplicates of held-out rows. Raises SnapshotError."""
    scans = -(-MOST_HELD_OUT // CHUNK)
    return [searcher(rows, MOST_HELD_OUT, scans, device) for rows in (memory.image, memory.text)]


def near(searchers: list[Searcher], ids: np.ndarray, minimum: float) -> np.ndarray:
    """Return the memory_ids, ascending, whose similarity to one of `ids` is at least `minimum`.

    The similarity is that of any searcher's rows; only the LOOK nearest rows are examined.
    """
    found = [np.zeros(0, np.int64)]
    for search in searchers:
        for start in range(0, len(ids), CHUNK):
            queries = embeddings_of(search.rows, ids[start : start + CHUNK])
            nearest = search(queries, min(LOOK, search.rows.rows))
            found.append(nearest.ids[nearest.similarities >= minimum])
    return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Neighbourhood:
    """Finds the neighbours of a modality's rows."""

    memory: JointMemory
    split: Split
    search: Searcher
    k: int
    duplicates: float

    def of(self, side: str, ids: np.ndarray) -> np.ndarray:
        """Return the neighbours of (n,) memory_ids: (n, k) int64, best first, -1 for none.

        Neighbours are rows of the bank with another caption, and neither of their embeddings is a
        near duplicate of the row's own. Only the LOOK nearest rows are examined. Memory: that of an
        exact search of CHUNK queries.
        """
        rows = [self._of_chunk(side, ids[i : i + CHUNK]) for i in range(0, len(ids), CHUNK)]
        return np.concatenate([np.zeros((0, self.k), np.int64), *rows])

    def _of_chunk(self, side: str, ids: np.ndarray) -> np.ndarray:
        queries = embeddings_of(self.memory.of(side), ids)

        def allowed(todo: np.ndarray, nearest: np.ndarray) -> np.ndarray:
            return self._allowed(ids[todo], nearest)

        return nearest_allowed(self.search, queries, self.k, allowed)

    def _allowed(self, ids: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Return which of (n, m) candidates may be neighbours of (n,) rows: (n, m) bool."""
        captions = self.split.captions
        allowed = (nearest >= 0) & self.split.bank[nearest]
        allowed &= captions[nearest] != captions[ids][:, None]
        row, column = np.nonzero(allowed)
        step = max(1, PAIR_BYTES // (8 * self.memory.image.dim))
        for start in range(0, len(row), step):
            some = slice(start, start + step)
            pairs = ids[row[some]], nearest[row[some], column[some]]
            duplicate = self._similarity("image", *pairs) >= self.duplicates
            duplicate |= self._similarity("text", *pairs) >= self.duplicates
            allowed[row[some], column[some]] = ~duplicate
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
    """Return a searcher of the neighbours of each refined modality. Raises SnapshotError."""
    searched = {side: memory.searched(side, search) for side in sides}
    scans = -(-memory.image.rows // CHUNK)
    return {side: searcher(rows, rows.rows, scans, device) for side, rows in searched.items()}
