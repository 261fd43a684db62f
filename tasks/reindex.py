"""The steps of a re-index as Prefect tasks: thin, over index_build's plain functions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from index_build.base.batches import Batch
from index_build.ledger import Totals
from index_build.plan import ReindexPlan, stop_if_too_many
from index_build.sources.look_up import Wanted
from tasks.devices import shares
from tasks.stage import step
from xmore.config.execution import ExecutionConfig
from xmore.files.processes import shared_out
from xmore.files.progress import track
from xmore.memory.snapshot import Snapshot
from xmore.models.batch_size import settled
from xmore.models.device import pick_device
from xmore.models.loaded import load_encoder
from xmore.models.spec import ModelCard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """The result of a download."""

    rows: int  # requested from servers
    images: int
    image_bytes: int


@step("list rows of {plan.config.name}")
def list_rows(plan: ReindexPlan) -> list[Wanted]:
    """Read the sources -> the rows wanted in the memory."""
    from index_build.sources.look_up import want

    return [want(listed, plan.config) for listed in plan.listed]


@step("select new rows of {plan.config.name}")
def select_new(plan: ReindexPlan, wanted: list[Wanted]) -> list[Batch]:
    """Read the wanted rows and earlier outcomes -> one batch per source of the rows to process.

    Open batches of a stopped run come first; open batches of another plan are closed.
    """
    from index_build.base.batches import close, list_batches
    from index_build.select import begin_batch
    from xmore.files.paths import sweep

    memory = plan.config.memory
    for batch in list_batches(memory):
        if batch.asked != plan.selection_digest:
            close(batch)
    opened = [batch for batch in list_batches(memory) if not batch.closed]
    for batch in opened:
        sweep(batch.path)
    labels = {batch.source for batch in opened}
    missing = [i for i, want in enumerate(wanted) if want.listed.source.label not in labels]
    return opened + begin_batch(plan, wanted, missing)


@step("download {batch.name}")
def download(plan: ReindexPlan, batch: Batch) -> Fetched:
    """Read a batch's rows -> webdataset shards, by img2dataset, and each row's outcome."""
    from index_build.download.images import download_shards, write_outcomes
    from index_build.download.job import Job

    job = Job(
        rows=batch.rows,
        target=batch.images,
        shard_rows=plan.config.shard_rows,
        bounds=plan.config.download,
        spark_master=plan.config.spark_master,
        taken=[value for value in plan.refused if "://" not in value],
    )
    shards = download_shards(job, batch.shards)
    rows, images = write_outcomes(batch)
    size = sum(path.stat().st_size for path in batch.images.glob("*.tar"))
    return Fetched(rows if shards else 0, images, size)


@step("check failures of {plan.config.name}")
def check(plan: ReindexPlan, wanted: list[Wanted]) -> None:
    """Raise SnapshotError if too many rows have failed, before anything is embedded.

    The first line of a list that cannot be read is named in a warning.
    """
    from index_build.base.batches import list_batches
    from index_build.download.images import forget_failed
    from index_build.ledger import open_ledger

    with open_ledger(plan.config.memory, wanted, plan.refused, plan.config.download) as ledger:
        failures, asked = ledger.outcome_counts()
    bad = [want.first_bad for want in wanted if want.first_bad]
    try:
        stop_if_too_many(plan, failures, asked, ", ".join(bad))
    except Exception:
        # An outage must not be recorded: rows that failed now count as never attempted.
        for batch in list_batches(plan.config.memory):
            if batch.kind == "urls" and not batch.closed:
                forget_failed(batch, plan.config.max_rejected)
        raise
    for place in bad:
        log.warning("lines of the list were left out; the first is %s", place)


@step("embed {batch.name} from shard {numbers[0]}")
def embed(model: ModelCard, execution: ExecutionConfig, batch: Batch, numbers: list[int]) -> int:
    """Read a batch's shards -> image and text embeddings, metadata; return rows embedded.

    A cluster sends each call's arguments to a worker: no plan, which holds all pairs.
    """
    from index_build.embed import images_of

    shards = [(number, images_of(batch, number)) for number in numbers]
    shared = shares(execution, shards)
    if shared:
        calls = [(model, execution, batch, mine, device) for device, mine in shared]
        found = shared_out(embed_here, calls)
    else:
        found = embed_here(model, execution, batch, shards)
    sizes = [images for _, images in shards]
    shown = track(numbers, f"memory embedding {batch.source}", "image", sizes=sizes)
    return sum(next(found) for _ in shown)


def embed_here(
    model: ModelCard,
    execution: ExecutionConfig,
    batch: Batch,
    shards: Sequence[tuple[int, int]],
    device: str | None = None,
) -> Iterator[int]:
    """Embed shards, each a number and its images, in this process -> the rows embedded of each."""
    from index_build.embed import embed_shards, record_empty_shards, take_over_shards

    numbers, images = [number for number, _ in shards], sum(images for _, images in shards)
    if batch.kind == "clip_retrieval":
        return take_over_shards(batch, numbers, batch.features(model))
    if not images:
        return record_empty_shards(numbers, batch.features(model))
    device = device or pick_device(execution.device, among_others=execution.runner != "local")
    encoder = load_encoder(model, device, images=images)
    size = settled(execution.batch_size, [model], device)
    return embed_shards(batch, shards, batch.features(model), encoder, size, execution.workers)


@step("assemble {plan.config.name}")
def assemble(
    plan: ReindexPlan, wanted: list[Wanted], previous: Snapshot | None
) -> tuple[Any, Totals]:
    """Read the features and the wanted rows -> the snapshot's shards, linked or rewritten."""
    from index_build import snapshot as build
    from index_build.ledger import open_ledger

    with open_ledger(plan.config.memory, wanted, plan.refused, plan.config.download) as ledger:
        ledger.read_features(plan.model)
        totals = ledger.totals()
        stop_if_too_many(plan, totals.failures, totals.asked)
        return build.assemble(plan, ledger.kept_shards(), ledger.count_shards(), previous), totals


@step("index {plan.config.name}")
def index(plan: ReindexPlan, assembled: Any, previous: Snapshot | None) -> dict[str, Any]:
    """Read the embeddings -> each index, kept, added to or built, then tuned; and its recall."""
    from index_build.index.reuse import make_indices

    return make_indices(plan, assembled, previous)


@step("publish {plan.config.name}")
def publish(plan: ReindexPlan, assembled: Any, totals: Totals, indices: dict[str, Any]) -> Snapshot:
    """Verify the assembled rows and indices, and publish them as a snapshot of the memory."""
    from index_build import snapshot as build
    from xmore.memory.snapshot import open_snapshot

    facts = {
        "sources": {
            listed.source.label: {
                "kind": listed.source.kind,
                "place": listed.source.place,
                "root": listed.root,
            }
            for listed in plan.listed
        },
        "asked": totals.asked,
        "failures": dict(totals.failures.most_common()),
        "filtered": dict(totals.filtered.most_common()),
        "without_caption": totals.without_caption,
        "retryable": totals.retryable,
        "hosts": [list(host) for host in totals.hosts],
        **indices,
    }
    unpublished = build.write_manifest(plan, assembled, facts)
    return open_snapshot(plan.config.memory, build.publish(plan, unpublished))
