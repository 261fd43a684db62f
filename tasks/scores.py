"""`scores`: image and text probabilities with their confidences, under one inference model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore.methods.base import PAPER_M
from xmore.methods.scoring import (
    class_features,
    class_probabilities,
    confidence,
    mean_over_captions,
)
from xmore.models.spec import ModelCard, context_length
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows
from xmore.store.checks import read_manifest

if TYPE_CHECKING:
    from tasks.texts import TextEncoder

BLOCK_BYTES = 64 << 20  # maximum size of the captions' float64 probabilities in memory


@dataclass(frozen=True)
class ScoreInputs:
    """The artifacts from which scores are computed; none holds a label."""

    embeddings: ArtifactRef  # of the inference model
    captions: ArtifactRef
    classes: ArtifactRef
    prefix: str = ""  # put before each caption


@stage("scores {inputs.embeddings.dataset}, {model.name}, M={m}{work.under}")
def scores(work: Workspace, inputs: ScoreInputs, model: ModelCard, m: int) -> ArtifactRef:
    """Compute P_I = softmax(tau x . t_c), and P_T, its mean over the first M captions."""
    refs = (inputs.embeddings, inputs.captions, inputs.classes)
    params: dict[str, Any] = {"m": m, "model": model.identity}
    if inputs.prefix:
        params["prefix"] = inputs.prefix
    digests = tuple(ref.digest for ref in refs)
    key = ArtifactKey("scores", inputs.captions.dataset, params, digests, model.name)
    found = work.store.find(key)
    if found:
        return found

    scorer, cut = _scorer(work, inputs.embeddings, inputs.classes, model)
    scorer = replace(scorer, m=m, prefix=inputs.prefix)

    def make_part(start: int, stop: int) -> pa.Table:
        blocks = [
            scorer.table(
                read_rows(inputs.embeddings, a, b), read_rows(inputs.captions, a, b, ["captions"])
            )
            for a, b in _blocks(start, stop, m, inputs.classes.rows)
        ]
        return pa.concat_tables(blocks).combine_chunks()

    sizes = split_rows(inputs.captions.rows, work.execution.part_rows, 8 * inputs.classes.rows)
    return work.store.write(key, sizes, make_part, lambda: cut)


@stage("scores {embeddings.dataset}, {model.name}, images alone{work.under}")
def image_scores(
    work: Workspace, embeddings: ArtifactRef, classes: ArtifactRef, model: ModelCard
) -> ArtifactRef:
    """Compute P_I alone, in a run without a memory; what is of captions is null.

    To the last bit as `scores` does for the paper's M; another M may group queries otherwise.
    """
    digests = (embeddings.digest, classes.digest)
    params = {"model": model.identity}  # without M, which `scores` has
    key = ArtifactKey("scores", embeddings.dataset, params, digests, model.name)
    found = work.store.find(key)
    if found:
        return found

    scorer, cut = _scorer(work, embeddings, classes, model)

    def make_part(start: int, stop: int) -> pa.Table:
        # In the blocks of a run with captions, as BLAS may round others' last rows otherwise.
        spans = _blocks(start, stop, PAPER_M, classes.rows)
        blocks = [scorer.images(read_rows(embeddings, a, b)) for a, b in spans]
        return pa.concat_tables(blocks).combine_chunks()

    sizes = split_rows(embeddings.rows, work.execution.part_rows, 8 * classes.rows)
    return work.store.write(key, sizes, make_part, lambda: cut)


def _blocks(start: int, stop: int, m: int, classes: int) -> Iterable[tuple[int, int]]:
    """Return the spans of a part's queries that are scored together: see BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // (8 * m * classes))
    return pairwise([*range(start, stop, size), stop])


def _scorer(
    work: Workspace, embeddings: ArtifactRef, classes: ArtifactRef, model: ModelCard
) -> tuple[_Scorer, dict[str, Any]]:
    """Encode the classes -> what scores images for them, and the facts of the manifest."""
    from tasks.texts import TextEncoder  # torch, only when there is work

    encoder = TextEncoder(work, model)
    prompts = read_rows(classes)["prompts"].to_pylist()
    texts = [text for of_class in prompts for text in of_class]
    encoded = encoder.features(texts)
    features = class_features(encoded.unit, [len(of_class) for of_class in prompts])
    tau = read_manifest(Path(embeddings.path))["facts"]["logit_scale"]
    cut = {"cut_sentences": _cut(encoded.truncated, texts, context_length(model))}
    return _Scorer(encoder, features, tau), cut


def _cut(truncated: np.ndarray, texts: list[str], limit: int) -> dict[str, Any] | None:
    """Return how many class sentences are longer than a model reads; None if none is."""
    if not truncated.any():
        return None
    count, first = int(truncated.sum()), texts[int(truncated.argmax())]
    return {"count": count, "of": len(texts), "first": first, "tokens": limit}


@dataclass(frozen=True)
class _Scorer:
    encoder: TextEncoder
    class_features: np.ndarray  # (C, D) float32
    tau: float
    m: int = 0  # captions per query
    prefix: str = ""  # of each caption

    def table(self, images: pa.Table, captions: pa.Table) -> pa.Table:
        """Score rows of `query_embeddings` and `captions` -> rows of `scores`."""
        which, texts = self._which(captions["captions"])
        covered = which[:, 0] >= 0
        text_scores = np.full((len(which), len(self.class_features)), np.nan, np.float32)
        truncated = np.zeros(len(which), np.int32)
        if texts:
            features = self.encoder.features([self.prefix + text for text in texts])
            means = mean_over_captions(self._probabilities(features.unit), which)
            text_scores = means.astype(np.float32)
            truncated = (features.truncated[which] & (which >= 0)).sum(1)
        return self._table(
            images,
            text_scores=schemas.matrix_lists(text_scores, covered),
            text_confidence=pa.array(confidence(text_scores), mask=~covered),
            caption_count=(which >= 0).sum(1),
            truncated_count=truncated,
        )

    def images(self, images: pa.Table) -> pa.Table:
        """Score rows of `query_embeddings` -> rows of `scores`, null but for the image."""
        of_captions = ("text_scores", "text_confidence", "caption_count", "truncated_count")
        kinds = {name: schemas.SCORES.field(name).type for name in of_captions}
        nulls = {name: pa.nulls(images.num_rows, kind) for name, kind in kinds.items()}
        return self._table(images, **nulls)

    def _table(self, images: pa.Table, **of_captions: Any) -> pa.Table:
        image_scores = self._probabilities(schemas.to_matrix(images["embedding"]))
        image_scores = image_scores.astype(np.float32)
        columns = {
            "query_id": images["query_id"],
            "image_scores": schemas.matrix_lists(image_scores),
            "image_confidence": confidence(image_scores),
        }
        return pa.table(columns | of_captions, schema=schemas.SCORES)

    def _which(self, column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
        """Encode captions as (Q, M) positions in the distinct texts, -1 if absent -> with these."""
        flat, lengths = schemas.to_ragged(column)
        present = np.arange(max(self.m, lengths.max(initial=0))) < lengths[:, None]
        encoded = pa.array(flat, pa.string()).dictionary_encode()
        which = np.full(present.shape, -1, np.int64)
        which[present] = encoded.indices.to_numpy()
        return which[:, : self.m], encoded.dictionary.to_pylist()

    def _probabilities(self, features: np.ndarray) -> np.ndarray:
        return class_probabilities(features, self.class_features, self.tau)
