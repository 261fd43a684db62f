"""`method_scores`: the scores of a method that computes its own, under one inference model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tasks.devices import MakePart, make_here, make_parts
from tasks.pixels import DatasetImages, Span, Stream, dataset_images
from tasks.stage import Workspace, stage
from tasks.streams import evidence_table
from xmore.datasets.card import DatasetCard
from xmore.methods.base import MethodRequest, QueryShard, Scorer, ScoringContext, needed
from xmore.methods.guard import check_scores
from xmore.methods.ordered import Evidence, OrderedScorer
from xmore.methods.registry import MethodRef
from xmore.methods.source import method_key, source_of
from xmore.models.spec import TOKENIZER, ModelCard
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows
from xmore.store.checks import read_manifest

if TYPE_CHECKING:
    import torch

    from xmore.models.encoder import OpenClipEncoder

RUN_A_MODEL = {"pixels", "view_embeddings"}  # what methods need that run a tower themselves


@dataclass(frozen=True)
class MethodInputs:
    """The artifacts that a method may read. `queries` holds labels, which nothing here reads."""

    card: DatasetCard
    queries: ArtifactRef
    classes: ArtifactRef
    embeddings: ArtifactRef  # of the inference model
    captions: ArtifactRef | None = None  # None without a memory
    views: ArtifactRef | None = None  # augmented views, of the inference model; if needed
    leaks: ArtifactRef | None = None  # test images in the run's memory; None: not looked for

    def of(self, scorer: Scorer) -> list[ArtifactRef]:
        """Return those that its scores depend on; the embeddings stand for images and weights."""
        read = [self.classes, self.embeddings]
        if self.captions and "captions" in scorer.needs:
            read.append(self.captions)
        if self.views and "view_embeddings" in scorer.needs:
            read.append(self.views)
        if self.leaks and "leaks" in scorer.needs:
            read.append(self.leaks)
        return read


@stage("method_scores {inputs.queries.dataset}, {model.name}, {method}{work.under}")
def method_scores(
    work: Workspace,
    inputs: MethodInputs,
    model: ModelCard,
    method: MethodRef,
    request: MethodRequest,
) -> ArtifactRef:
    """Read what the method `needs` -> one distribution over the classes per query, float32.

    If the method reads augmented views, queries without them have no row. Memory: one part, and
    the method's own. Raises TypeError if the method has no scores of its own.
    """
    scorer, request = method.method, replace(request, model=model)
    if not isinstance(scorer, Scorer):
        raise TypeError(f"`{method}` has no scores of its own")
    params: dict[str, Any] = {
        "method": method_key(scorer),
        "asked": scorer.identity(request),
    }
    if TOKENIZER in model.identity:  # the embeddings stand for the rest of the model
        params[TOKENIZER] = model.identity[TOKENIZER]
    if request.m is not None:
        params["m"] = request.m
    digests = tuple(ref.digest for ref in inputs.of(scorer))
    source = source_of(scorer)
    key = ArtifactKey("method_scores", inputs.queries.dataset, params, digests, model.name, source)
    found = work.store.find(key)
    if found:
        return found

    ids = _Reader(work, inputs, model, scorer, request, []).ids
    rows = min(scorer.part_rows, work.execution.part_rows)
    sizes = split_rows(len(ids), rows, 8 * inputs.classes.rows)
    # Reading what is stored needs no GPU, so none of its own.
    share = make_parts if RUN_A_MODEL & scorer.needs else make_here
    made = share(_parts, work, sizes, inputs, model, method, request)
    return work.store.write(key, sizes, made)


def _parts(
    work: Workspace,
    spans: Sequence[Span],
    inputs: MethodInputs,
    model: ModelCard,
    method: MethodRef,
    request: MethodRequest,
) -> MakePart:
    scorer = method.method
    assert isinstance(scorer, Scorer)
    reader = _Reader(work, inputs, model, scorer, request, spans)
    prepare = scorer.evidence if isinstance(scorer, OrderedScorer) else scorer.prepare
    score: Callable[[QueryShard], Any] = prepare(reader.context)

    def make_part(start: int, stop: int) -> pa.Table:
        ids = reader.ids[start:stop]
        shard = reader.shard(start, stop)
        found = score(shard)
        class_scores = found.class_scores if isinstance(found, Evidence) else found
        answered = np.ones(len(ids), bool)
        if shard.captions is not None:
            answered = np.array([len(texts) > 0 for texts in shard.captions])
        check_scores(scorer, class_scores, (len(ids), inputs.classes.rows), answered)
        if isinstance(found, Evidence):
            return evidence_table(ids, scorer.name, found)
        return pa.table(
            {
                "query_id": ids,
                "method": [scorer.name] * len(ids),
                "class_scores": schemas.matrix_lists(class_scores.astype(np.float32)),
            },
            schema=schemas.METHOD_SCORES,
        )

    return make_part


@dataclass(frozen=True)
class _Reader:
    """Reads what a method needs, and nothing else."""

    work: Workspace
    inputs: MethodInputs
    model: ModelCard
    scorer: Scorer
    request: MethodRequest
    spans: Sequence[Span]  # of the parts

    @property
    def context(self) -> ScoringContext:
        from tasks.texts import TextEncoder

        texts = TextEncoder(self.work, self.model)
        classes = read_rows(self.inputs.classes)
        facts = read_manifest(Path(self.inputs.embeddings.path))["facts"]
        return ScoringContext(
            request=self.request,
            class_names=classes["class_name"].to_pylist(),
            prompts=classes["prompts"].to_pylist(),
            tau=facts["logit_scale"],
            texts=lambda wanted: texts.features(wanted).unit,
            load=self._load,
            leaked=self._leaked,
        )

    def _leaked(self) -> frozenset[str]:
        """Return the memory_keys of test images: of the run's leaks, and their bytes elsewhere."""
        if self.inputs.leaks is None or "leaks" not in self.scorer.needs:
            return frozenset()
        known = ((self.inputs.leaks, "memory_key"), (self.inputs.queries, "sha256"))
        return frozenset().union(
            *(read_rows(ref, columns=[name])[name].to_pylist() for ref, name in known)
        )

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) ascending query_ids, which are also row numbers in all artifacts but the views."""
        if self._views is None:
            return np.arange(self.inputs.queries.rows)
        return np.unique(read_rows(self._views, columns=["query_id"])["query_id"].to_numpy())

    @property
    def _views(self) -> ArtifactRef | None:
        return self.inputs.views if "view_embeddings" in self.scorer.needs else None

    def shard(self, start: int, stop: int) -> QueryShard:
        """Read what the method needs for a part: the queries `ids[start:stop]`."""
        ids, needs = self.ids[start:stop], self.scorer.needs
        features = pixels = views = captions = None
        if "query_embeddings" in needs:
            features = schemas.to_matrix(_rows(self.inputs.embeddings, ids)["embedding"])
        if "pixels" in needs:
            pixels = partial(self._pixels, start, stop)
        if self._views:
            count = self._views.rows // len(self.ids)
            first = int(np.searchsorted(self.ids, ids[0])) * count
            rows = read_rows(self._views, first, first + len(ids) * count, ["embedding"])
            views = schemas.to_matrix(rows["embedding"]).reshape(len(ids), count, -1)
        if "captions" in needs:
            listed = _rows(needed(self.inputs.captions), ids)["captions"].to_pylist()
            captions = [of_query[: self.request.m] for of_query in listed]
        return QueryShard(features, pixels, views, captions)

    @cached_property
    def _pixels(self) -> Stream[Iterator[torch.Tensor]]:
        def rows(start: int, stop: int) -> pa.Table:
            return _rows(self.inputs.queries, self.ids[start:stop])

        return self._images.pixels(self.spans, rows)

    @cached_property
    def _images(self) -> DatasetImages:
        return dataset_images(self.work, self.inputs.card, self.model)

    def _load(self) -> OpenClipEncoder:
        return self._images.encoder


def _rows(ref: ArtifactRef, ids: np.ndarray) -> pa.Table:
    """Read the rows of ascending query_ids from an artifact with one row per query."""
    first = int(ids[0])
    return read_rows(ref, first, int(ids[-1]) + 1).take(pa.array(ids - first))
