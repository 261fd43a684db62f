"""`view_embeddings`: features of augmented views of the queries, under one inference model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tasks.devices import MakePart, make_parts
from tasks.pixels import Span, dataset_images
from tasks.stage import Workspace, stage
from xmore.datasets.card import DatasetCard
from xmore.methods.adjust import stream_order
from xmore.methods.base import ViewSet
from xmore.models.spec import ModelCard
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows


@stage("view_embeddings {queries.dataset}, {model.name}, {views}")
def view_embeddings(
    work: Workspace,
    queries: ArtifactRef,
    card: DatasetCard,
    model: ModelCard,
    views: ViewSet,
) -> ArtifactRef:
    """Read `queries` and the card's images -> `views.count` unit features per query, float32.

    Covers all queries, or `views.limit` of them drawn by `views.seed`. A part has at most
    `part_rows` augmented views. Each is encoded once, however many methods read it.
    """
    drawn = np.sort(stream_order(queries.rows, views.seed)[: views.limit])
    params = {
        "model": model.image_identity,
        "count": views.count,
        "augmix": views.augmix,
        "seed": views.seed,
        "limit": None if len(drawn) == queries.rows else len(drawn),
    }
    key = ArtifactKey("view_embeddings", queries.dataset, params, (queries.digest,), model.name)
    found = work.store.find(key)
    if found:
        return found

    sizes = split_rows(len(drawn), max(1, work.execution.part_rows // views.count))
    made = make_parts(_parts, work, sizes, queries, card, model, views, drawn)
    return work.store.write(key, sizes, made)


def _parts(
    work: Workspace,
    spans: Sequence[Span],
    queries: ArtifactRef,
    card: DatasetCard,
    model: ModelCard,
    views: ViewSet,
    drawn: np.ndarray,
) -> MakePart:
    from xmore.models.augmented_views import ViewMaker

    images = dataset_images(work, card, model, spans)
    encoder = images.encoder
    maker = ViewMaker(encoder.resize, encoder.image_size, views.count, views.augmix, views.seed)
    listed = read_rows(queries)

    def rows(start: int, stop: int) -> pa.Table:
        return listed.take(pa.array(drawn[start:stop]))

    stream = images.features(spans, rows, maker, views.count)

    def make_part(start: int, stop: int) -> pa.Table:
        unit = stream(start, stop)
        return pa.table(
            {
                "query_id": np.repeat(rows(start, stop)["query_id"].to_numpy(), views.count),
                "view": np.tile(np.arange(views.count), stop - start),
                "embedding": schemas.fixed_lists(unit),
            },
            schema=schemas.view_embeddings(unit.shape[1]),
        )

    return make_part
