"""`queries`: the test images of a dataset, with `classes` and the images that were `rejected`."""

from __future__ import annotations

import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore import schemas
from xmore.dataset import DatasetCard, Scan, scan
from xmore.store import ArtifactKey, ArtifactRef, split_rows


@stage("queries {card.name}")
def queries(
    work: Workspace, card: DatasetCard, prompt: str, max_rejected: float
) -> tuple[ArtifactRef, ArtifactRef, ArtifactRef]:
    """List, hash and check a dataset's images -> refs of `queries`, `classes`, `rejected`."""
    found = scan(card, work.cache, max_rejected)
    content = {
        "classes": found.class_names,
        "files": [[query.uri, query.label, query.sha256] for query in found.queries],
        "rejected": found.rejected,
    }
    rows = work.execution.part_rows
    return (
        work.store.write(
            ArtifactKey("queries", card.name, content),
            split_rows(len(found.queries), rows),
            lambda start, stop: _queries(found, start, stop),
        ),
        work.store.write(
            ArtifactKey("classes", card.name, {"names": found.class_names, "prompt": prompt}),
            [len(found.class_names)],
            lambda start, stop: _classes(found.class_names, prompt),
        ),
        work.store.write(
            ArtifactKey("rejected", card.name, {"rejected": found.rejected}),
            split_rows(len(found.rejected), rows),
            lambda start, stop: _rejected(found.rejected[start:stop]),
        ),
    )


def _queries(found: Scan, start: int, stop: int) -> pa.Table:
    part = found.queries[start:stop]
    return pa.table(
        {
            "query_id": range(start, stop),
            "label": [query.label for query in part],
            "class_name": [found.class_names[query.label] for query in part],
            "uri": [query.uri for query in part],
            "sha256": [query.sha256 for query in part],
        },
        schema=schemas.QUERIES,
    )


def _classes(names: list[str], prompt: str) -> pa.Table:
    prompts = [prompt.replace("{}", name) for name in names]
    return pa.table(
        {"label": range(len(names)), "class_name": names, "prompt": prompts},
        schema=schemas.CLASSES,
    )


def _rejected(rejected: list[tuple[str, str]]) -> pa.Table:
    uris, causes = [uri for uri, _ in rejected], [cause for _, cause in rejected]
    return pa.table({"uri": uris, "cause": causes}, schema=schemas.REJECTED)
