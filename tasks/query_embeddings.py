"""`query_embeddings`: the image features of all queries under one model."""

from __future__ import annotations

import pyarrow as pa

from tasks.pixels import dataset_images
from tasks.stage import Workspace, stage
from xmore.datasets.card import DatasetCard
from xmore.models.spec import ModelCard
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows


@stage("query_embeddings {queries.dataset}, {model.name}")
def query_embeddings(
    work: Workspace, queries: ArtifactRef, card: DatasetCard, model: ModelCard
) -> ArtifactRef:
    """Read `queries` and the card's images -> unit features, float32."""
    key = ArtifactKey(
        "query_embeddings", queries.dataset, model.image_identity, (queries.digest,), model.name
    )
    found = work.store.find(key)
    if found:
        return found

    images = dataset_images(work, card, model)

    def make_part(start: int, stop: int) -> pa.Table:
        rows = read_rows(queries, start, stop)
        unit = images.features(rows)
        return pa.table(
            {"query_id": rows["query_id"], "embedding": schemas.fixed_lists(unit)},
            schema=schemas.query_embeddings(unit.shape[1]),
        )

    return work.store.write(
        key,
        split_rows(queries.rows, work.execution.part_rows),
        make_part,
        lambda: {"logit_scale": images.encoder.logit_scale},
    )
