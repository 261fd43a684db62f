"""Memories that are searched by text, in the inference model's space."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xmore.files.errors import ConfigError, SnapshotError
from xmore.memory.adopt import open_memory
from xmore.memory.allowed import nearest_allowed
from xmore.memory.cost import exact_is_affordable
from xmore.memory.rows import embeddings_of, keys_of
from xmore.memory.search import Searcher
from xmore.memory.snapshot import Snapshot
from xmore.methods.base import MethodRequest, needed
from xmore.models.spec import same_space

TEXTS = 1024  # for which it is decided whether exact search is affordable, however many there are
RERANK = 4  # at least: an index is tuned for images, and of texts it finds fewer true neighbours


@contextmanager
def memory_of(request: MethodRequest, method: str) -> Iterator[Snapshot]:
    """Open the memory in which a method searches by text under `request.model`.

    It cannot be deleted while open, and its bytes are compared as `open_memory` does. A folder made
    by clip-retrieval names no model: there the config's word is taken. Raises ConfigError,
    SnapshotError.
    """
    model, run = needed(request.model), request.memory
    folder = request.options.memories.get(model.name)
    if folder is None:
        if run is None or not same_space(run.model.identity, model.identity):
            theirs = f"by `{run.model.name}`, not " if run else ""
            raise ConfigError(
                f"`{method}` needs images embedded {theirs}by the inference model `{model.name}`. "
                f"Set `options: {{memories: {{{model.name}: FOLDER}}}}` to a memory that "
                f"`xmore reindex` has made with it, or remove `{method}` from `methods`."
            )
        yield run.snapshot
        return
    with open_memory(folder, request.cache) as snapshot:
        theirs = snapshot.manifest["model"]
        if theirs and not same_space(theirs["identity"], model.identity):
            raise SnapshotError(
                f"{snapshot.path}: was embedded by `{theirs['name']}`, not by the inference model "
                f"`{model.name}`, as `{method}` needs. Correct `options.memories`."
            )
        yield snapshot


def identity_of(memory: Snapshot) -> dict[str, Any]:
    """Return what the images that are found in a memory depend on (JSON)."""
    return {"memory": memory.digest, "index": _searcher(memory).index_sha256}


class ImagesByText:
    """Finds a memory's images nearest to texts, without test images.

    Search is exact where it is affordable, else by the index; what that finds is ranked by the
    stored embeddings.
    """

    def __init__(self, memory: Snapshot, leaked: Collection[str]) -> None:
        self.memory = memory
        self._search = _searcher(memory)
        self._leaked = pa.array(sorted(leaked), pa.string())

    def __call__(self, texts: np.ndarray, k: int) -> np.ndarray:
        """Return the k nearest images of (N, D) float32 unit rows: (N, k) int64 memory_ids.

        Best first, -1 for none; ties go to the lower memory_id. Raises SnapshotError if D is not
        the memory's. Memory: that of the search.
        """
        if texts.shape[1] != self.memory.dim:
            raise SnapshotError(
                f"{self.memory.path}: its embeddings have {self.memory.dim} dimensions, but those "
                f"of the inference model have {texts.shape[1]}. Correct `options.memories`."
            )
        return nearest_allowed(self._search, texts, k, lambda _, ids: self._no_test_image(ids))

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """Return the stored embeddings of (n,) memory_ids, in their order: (n, D) float32."""
        distinct, inverse = np.unique(ids, return_inverse=True)
        return embeddings_of(self.memory, distinct)[inverse]

    def _no_test_image(self, ids: np.ndarray) -> np.ndarray:
        if not len(self._leaked):
            return np.ones(ids.shape, bool)
        distinct, inverse = np.unique(ids, return_inverse=True)
        real = distinct[distinct >= 0]
        leaked = np.zeros(len(distinct), bool)
        found = pc.is_in(keys_of(self.memory, real), value_set=self._leaked)
        leaked[len(distinct) - len(real) :] = found.to_numpy(zero_copy_only=False)
        return ~leaked[inverse].reshape(ids.shape)


def _searcher(memory: Snapshot) -> Searcher:
    affordable = exact_is_affordable(TEXTS, memory.rows, memory.dim)
    exact = affordable or memory.index is None
    return Searcher(memory, exact, max(RERANK, (memory.index or {}).get("rerank", 1)))
