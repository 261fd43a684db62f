"""`ranks`: where each image finds the best of its captions, and each caption its image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore.files.errors import ModelError
from xmore.models.spec import ModelCard, context_length
from xmore.results.ranks import DIRECTIONS, ranks_among
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows

if TYPE_CHECKING:
    from xmore.models.encoder import TextFeatures


@stage("ranks {captions.dataset}, {model.name}")
def ranks(
    work: Workspace, embeddings: ArtifactRef, captions: ArtifactRef, model: ModelCard
) -> ArtifactRef:
    """Read `query_embeddings` and `image_captions` -> a row per image, then a row per caption.

    Memory: the features of all images and captions in float64, and that of `ranks_among`.
    """
    key = ArtifactKey(
        "ranks",
        captions.dataset,
        {"model": model.identity},
        (embeddings.digest, captions.digest),
        model.name,
    )
    found = work.store.find(key)
    if found:
        return found

    from tasks.texts import TextEncoder  # torch, only when there is work

    listed = read_rows(captions)
    encoded = TextEncoder(work, model).features(listed["caption"].to_pylist())
    images = schemas.to_matrix(read_rows(embeddings, columns=["embedding"])["embedding"])
    if images.shape[1] != encoded.unit.shape[1]:
        raise ModelError(
            f"model `{model.name}`: its images have {images.shape[1]} features and its texts "
            f"{encoded.unit.shape[1]}, which cannot be compared. Remove it from `roles.inference`."
        )
    ranked = _Ranked(images, encoded.unit, listed["query_id"].to_numpy())
    sizes = split_rows(len(images) + len(listed), work.execution.part_rows)
    facts = {"cut_captions": _cut(encoded, context_length(model))}
    return work.store.write(key, sizes, ranked.part, lambda: facts)


def _cut(encoded: TextFeatures, tokens: int) -> dict[str, Any] | None:
    """Return how many captions are longer than a model reads; None if none is."""
    count = int(encoded.truncated.sum())
    return {"count": count, "of": len(encoded.truncated), "tokens": tokens} if count else None


class _Ranked:
    """The rows of `ranks`, in order: those of the images, then those of the captions."""

    def __init__(self, images: np.ndarray, texts: np.ndarray, image_of: np.ndarray) -> None:
        """Take (N, D) and (T, D) float32, and the image of each caption, (T,) int64, ascending."""
        self._images, self._texts = images.astype(np.float64), texts.astype(np.float64)
        self._image_of = image_of
        edges = np.searchsorted(image_of, np.arange(len(images) + 1))
        self._captions_of = np.stack([edges[:-1], edges[1:]], 1)

    def part(self, start: int, stop: int) -> pa.Table:
        """Return the rows [start, stop)."""
        n = len(self._images)
        tables = []
        if start < n:
            tables.append(self._of_images(slice(start, min(stop, n))))
        if stop > n:
            tables.append(self._of_captions(slice(max(start - n, 0), stop - n)))
        return pa.concat_tables(tables)

    def _of_images(self, rows: slice) -> pa.Table:
        own = self._captions_of[rows]
        found = ranks_among(self._images[rows], self._texts, own)
        return _table(DIRECTIONS[0], np.arange(rows.start, rows.stop), *found)

    def _of_captions(self, rows: slice) -> pa.Table:
        image = self._image_of[rows]
        found = ranks_among(self._texts[rows], self._images, np.stack([image, image + 1], 1))
        ids = np.arange(rows.start, rows.stop)
        return _table(DIRECTIONS[1], image, found.rank, ids, found.tied)


def _table(
    direction: str, image: np.ndarray, rank: np.ndarray, caption: np.ndarray, tied: np.ndarray
) -> pa.Table:
    columns = {"direction": [direction] * len(image), "query_id": image, "caption_id": caption}
    return pa.table(columns | {"rank": rank, "tied": tied}, schema=schemas.RANKS)
