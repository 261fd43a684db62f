"""`scores`: image and text probabilities with their confidences, under one inference model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace, stage
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

    from tasks.texts import TextEncoder  # torch, only when there is work

    encoder = TextEncoder(work, model)
    prompts = read_rows(inputs.classes)["prompts"].to_pylist()
    texts = [text for of_class in prompts for text in of_class]
    encoded = encoder.features(texts)
    features = class_features(encoded.unit, [len(of_class) for of_class in prompts])
    tau = read_manifest(Path(inputs.embeddings.path))["facts"]["logit_scale"]
    scorer = _Scorer(encoder, features, tau, m, inputs.prefix)
    block = max(1, BLOCK_BYTES // (8 * m * len(prompts)))

    def make_part(start: int, stop: int) -> pa.Table:
        edges = [*range(start, stop, block), stop]
        blocks = [
            scorer.table(
                read_rows(inputs.embeddings, a, b), read_rows(inputs.captions, a, b, ["captions"])
            )
            for a, b in pairwise(edges)
        ]
        return pa.concat_tables(blocks).combine_chunks()

    sizes = split_rows(inputs.captions.rows, work.execution.part_rows, 8 * len(prompts))
    cut = {"cut_sentences": _cut(encoded.truncated, texts, context_length(model))}
    return work.store.write(key, sizes, make_part, lambda: cut)


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
    m: int
    prefix: str

    def table(self, images: pa.Table, captions: pa.Table) -> pa.Table:
        """Score rows of `query_embeddings` and `captions` -> rows of `scores`."""
        which, texts = self._which(captions["captions"])
        image_scores = self._probabilities(schemas.to_matrix(images["embedding"]))
        image_scores = image_scores.astype(np.float32)
        covered = which[:, 0] >= 0
        text_scores = np.full(image_scores.shape, np.nan, np.float32)
        truncated = np.zeros(len(which), np.int32)
        if texts:
            features = self.encoder.features([self.prefix + text for text in texts])
            means = mean_over_captions(self._probabilities(features.unit), which)
            text_scores = means.astype(np.float32)
            truncated = (features.truncated[which] & (which >= 0)).sum(1)
        return pa.table(
            {
                "query_id": images["query_id"],
                "image_scores": schemas.matrix_lists(image_scores),
                "text_scores": schemas.matrix_lists(text_scores, covered),
                "image_confidence": confidence(image_scores),
                "text_confidence": pa.array(confidence(text_scores), mask=~covered),
                "caption_count": (which >= 0).sum(1),
                "truncated_count": truncated,
            },
            schema=schemas.SCORES,
        )

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
