"""`view_embeddings`: features of augmented views of the queries, under one inference model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tasks.pixels import dataset_images
from tasks.stage import Workspace, stage
from xmore.datasets.card import DatasetCard
from xmore.methods.adjust import stream_order
from xmore.methods.options import ViewsOptions
from xmore.models.spec import ModelCard
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows


@stage("view_embeddings {queries.dataset}, {model.name}")
def view_embeddings(
    work: Workspace,
    queries: ArtifactRef,
    card: DatasetCard,
    model: ModelCard,
    views: ViewsOptions,
) -> ArtifactRef:
    """Read `queries` and the card's images -> `views.count` unit features per query, float32.

    Covers all queries, or `views.limit` of them drawn by `views.seed`. A part has at most
    `part_rows` augmented views. Each is encoded once, however many methods read it.
    """
    drawn = np.sort(stream_order(queries.rows, views.seed)[: views.limit])
    augmix = not card.name.startswith("imagenet") if views.augmix is None else views.augmix
    params = {
        "model": model.image_identity,
        "count": views.count,
        "augmix": augmix,
        "seed": views.seed,
        "limit": None if len(drawn) == queries.rows else len(drawn),
    }
    key = ArtifactKey("view_embeddings", queries.dataset, params, (queries.digest,), model.name)
    found = work.store.find(key)
    if found:
        return found

    from xmore.models.augmented_views import ViewMaker

    images = dataset_images(work, card, model)
    encoder = images.encoder
    maker = ViewMaker(encoder.resize, encoder.image_size, views.count, augmix, views.seed)
    listed = read_rows(queries)

    def make_part(start: int, stop: int) -> pa.Table:
        rows = listed.take(pa.array(drawn[start:stop]))
        unit = images.features(rows, maker, views.count)
        return pa.table(
            {
                "query_id": np.repeat(rows["query_id"].to_numpy(), views.count),
                "view": np.tile(np.arange(views.count), stop - start),
                "embedding": schemas.fixed_lists(unit),
            },
            schema=schemas.view_embeddings(unit.shape[1]),
        )

    part_rows = max(1, work.execution.part_rows // views.count)
    return work.store.write(key, split_rows(len(drawn), part_rows), make_part)
