"""`query_embeddings`: the image features of all queries under one model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from tasks.devices import MakePart, make_parts
from tasks.pixels import Span, dataset_images
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

    sizes = split_rows(queries.rows, work.execution.part_rows)

    def facts() -> dict[str, float]:
        return {"logit_scale": dataset_images(work, card, model).encoder.logit_scale}

    return work.store.write(
        key, sizes, make_parts(_parts, work, sizes, queries, card, model), facts
    )


def _parts(
    work: Workspace,
    spans: Sequence[Span],
    queries: ArtifactRef,
    card: DatasetCard,
    model: ModelCard,
) -> MakePart:
    rows = partial(read_rows, queries)
    stream = dataset_images(work, card, model, spans).features(spans, rows)

    def make_part(start: int, stop: int) -> pa.Table:
        unit = stream(start, stop)
        return pa.table(
            {
                "query_id": read_rows(queries, start, stop, ["query_id"])["query_id"],
                "embedding": schemas.fixed_lists(unit),
            },
            schema=schemas.query_embeddings(unit.shape[1]),
        )

    return make_part
