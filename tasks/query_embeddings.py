"""`query_embeddings`: the image features of all queries under one model."""

from __future__ import annotations

import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore import schemas
from xmore.dataset import DatasetCard, open_images
from xmore.errors import DatasetError
from xmore.models import ModelCard
from xmore.readers import ListedImages
from xmore.store import ArtifactKey, ArtifactRef, read_rows, split_rows


@stage("query_embeddings {queries.dataset}, {model.name}")
def query_embeddings(
    work: Workspace, queries: ArtifactRef, card: DatasetCard, model: ModelCard
) -> ArtifactRef:
    """Read `queries` and the card's images -> unit features, float32."""
    key = ArtifactKey(
        "query_embeddings", queries.dataset, model.identity, (queries.digest,), model.name
    )
    found = work.store.find(key)
    if found:
        return found

    from xmore.encoders import load_encoder, pick_device
    from xmore.features import encode_images

    encoder = load_encoder(model, pick_device(work.execution.device))
    reader = open_images(card)

    def make_part(start: int, stop: int) -> pa.Table:
        rows = read_rows(queries, start, stop)
        images = ListedImages(reader, rows["uri"].to_pylist(), rows["sha256"].to_pylist())
        features = encode_images(images, encoder, work.execution)
        for i, cause in features.rejected.items():
            raise DatasetError(
                f"{card.root / images.names[i]}: {cause}. Run again to list the images anew."
            )
        return pa.table(
            {"query_id": rows["query_id"], "embedding": schemas.fixed_lists(features.unit)},
            schema=schemas.query_embeddings(features.unit.shape[1]),
        )

    return work.store.write(
        key,
        split_rows(queries.rows, work.execution.part_rows),
        make_part,
        lambda: {"logit_scale": encoder.logit_scale},
    )
