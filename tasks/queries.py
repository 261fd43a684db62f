"""`queries`: the test images of a dataset, with its `classes` and its `rejected` images."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace, stage
from xmore.config.benchmark import BenchmarkConfig
from xmore.datasets.card import DatasetCard
from xmore.datasets.prompts import prompts_of_sets
from xmore.datasets.scan import Scan, scan
from xmore.files.errors import DatasetError, printable
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows, split_rows
from xmore.store.cut import cut
from xmore.store.schemas import to_ragged

log = logging.getLogger(__name__)


@stage("queries {card.name}")
def queries(work: Workspace, card: DatasetCard, config: BenchmarkConfig) -> tuple[ArtifactRef, ...]:
    """List, hash and check a dataset's images -> refs of `queries`, `classes`, `rejected`.

    They are followed by the `classes` of all prompt sets but the first. Raises DatasetError if
    none or too few of the images can be used.
    """
    found = usable(work, card, config)
    sets = prompts_of_sets(found.class_names, config.prompts_by_set(card.prompt))
    content = {
        "classes": found.class_names,
        "files": [[query.uri, query.label, query.sha256] for query in found.queries],
        "rejected": found.rejected,
    }
    rows = work.execution.part_rows
    listed = work.store.write(
        ArtifactKey("queries", card.name, content),
        split_rows(len(found.queries), rows),
        lambda start, stop: query_rows(found, start, stop),
    )
    classes, *others = write_classes(work, card.name, found.class_names, sets)
    return listed, classes, write_rejected(work, card.name, found.rejected), *others


def usable(work: Workspace, card: DatasetCard, config: BenchmarkConfig) -> Scan:
    """Return a dataset's images, and log what may be meant otherwise. Raises DatasetError."""
    found = scan(card, work.cache, config.max_rejected, config.limit)
    if not found.queries:
        uri, cause = found.rejected[0]
        raise DatasetError(
            f"dataset `{card.name}`: none of its {len(found.rejected)} images can be used; the "
            f"first is {card.root / uri} ({cause})."
        )
    for note in found.notes:
        log.warning("%s", printable(f"dataset `{card.name}`: {note}"))
    return found


@stage("queries {queries.dataset} with K hits")
def full_queries(
    work: Workspace,
    queries: ArtifactRef,
    rejected: ArtifactRef,
    embeddings: ArtifactRef,
    candidates: ArtifactRef,
    k: int,
) -> tuple[ArtifactRef, ArtifactRef, ArtifactRef, ArtifactRef]:
    """Keep the queries that have K candidates, as the authors' code does.

    The others go to `rejected`; the remaining queries are renumbered. Returns refs of `queries`
    and `rejected`, and of the coarse `query_embeddings` and the `candidates` cut to the kept
    queries, which their stages then find. Raises DatasetError if no query is left.
    """
    hits = to_ragged(read_rows(candidates, columns=["memory_ids"])["memory_ids"])[1]
    full = hits >= k
    if full.all():
        return queries, rejected, embeddings, candidates
    if not full.any():
        raise DatasetError(
            f"dataset `{queries.dataset}`: no query has {k} hits. Lower `retrieval.candidates` or "
            "remove `drop_short`."
        )
    listed = read_rows(queries)
    kept = listed.filter(pa.array(full))
    kept = kept.set_column(0, schemas.QUERIES.field(0), pa.array(range(len(kept)), pa.int64()))
    uris = listed["uri"].filter(pa.array(~full))
    cause = pa.array([f"fewer than {k} hits"] * len(uris), pa.string())
    dropped = pa.table([uris, cause], schema=schemas.REJECTED)
    out = pa.concat_tables([read_rows(rejected), dropped])
    params, inputs = {"hits": k}, (queries.digest, candidates.digest)
    rows = work.execution.part_rows
    fewer = work.store.write(
        ArtifactKey("queries", queries.dataset, params, inputs),
        split_rows(len(kept), rows),
        lambda start, stop: kept[start:stop],
    )
    more = work.store.write(
        ArtifactKey("rejected", queries.dataset, params, (rejected.digest, *inputs)),
        split_rows(len(out), rows),
        lambda start, stop: out[start:stop],
    )
    renamed, places = {queries.digest: fewer.digest}, np.flatnonzero(full)
    mine = cut(work.store, embeddings, places, renamed, rows)
    renamed[embeddings.digest] = mine.digest
    return fewer, more, mine, cut(work.store, candidates, places, renamed, rows)


def query_rows(found: Scan, start: int, stop: int) -> pa.Table:
    """Return rows of `queries`; images without classes have neither label nor class_name."""
    part, names = found.queries[start:stop], found.class_names
    return pa.table(
        {
            "query_id": range(start, stop),
            "label": [query.label if names else None for query in part],
            "class_name": [names[query.label] if names else None for query in part],
            "uri": [query.uri for query in part],
            "sha256": [query.sha256 for query in part],
        },
        schema=schemas.QUERIES,
    )


def write_classes(
    work: Workspace, dataset: str, names: list[str], sets: dict[str, list[list[str]]]
) -> list[ArtifactRef]:
    """Write the `classes` of a dataset under each prompt set; sets of equal prompts share them."""
    written = []
    for name, prompts in sets.items():
        key = ArtifactKey("classes", dataset, {"names": names, "prompts": prompts})
        table = classes_table(names, prompts)
        ref = work.store.write(key, [len(names)], lambda *_, table=table: table)
        written.append(replace(ref, prompt_set=name))
    return written


def classes_table(names: list[str], prompts: list[list[str]]) -> pa.Table:
    """Return the rows of `classes`."""
    first = [of_class[0] for of_class in prompts]
    columns = {"label": range(len(names)), "class_name": names, "prompt": first}
    return pa.table(columns | {"prompts": prompts}, schema=schemas.CLASSES)


def write_rejected(work: Workspace, dataset: str, rejected: list[tuple[str, str]]) -> ArtifactRef:
    """Write the `rejected` of a dataset, each a uri and a cause."""
    return work.store.write(
        ArtifactKey("rejected", dataset, {"rejected": rejected}),
        split_rows(len(rejected), work.execution.part_rows),
        lambda start, stop: _rejected(rejected[start:stop]),
    )


def _rejected(rejected: list[tuple[str, str]]) -> pa.Table:
    uris, causes = [uri for uri, _ in rejected], [cause for _, cause in rejected]
    return pa.table({"uri": uris, "cause": causes}, schema=schemas.REJECTED)
