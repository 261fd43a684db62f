"""The steps of a re-index as Prefect tasks: thin, over index_build's plain functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from index_build.plan import Plan, stop_if_too_many
from tasks.stage import step
from xmore.memory import Snapshot


@dataclass(frozen=True)
class Pieces:
    """What is ready to be embedded."""

    asked: int
    failures: Counter[str]
    shards: int
    fetched: int  # of them downloaded by this run


@step("select rows of {plan.config.name}")
def select_rows(plan: Plan) -> Pieces:
    """Read the URL list -> the rows to download, cut into shards."""
    from index_build import urls

    assert plan.config.urls
    selected = urls.select_rows(plan.config.urls, plan.config.shard_rows, plan.rows_folder)
    failures = Counter(selected.failures)
    stop_if_too_many(plan, failures, selected.asked)
    return Pieces(selected.asked, failures, selected.shards, 0)


@step("download {plan.config.name}")
def download(plan: Plan, rows: Pieces) -> Pieces:
    """Read the selected rows -> webdataset shards, by img2dataset."""
    from index_build.download import SUCCESS, download_shards, forget_failed
    from index_build.img2dataset_job import Job

    config = plan.config
    job = Job(
        rows=plan.rows_folder,
        target=plan.images_folder,
        shard_rows=config.shard_rows,
        bounds=config.download,
    )
    outcomes, fetched = download_shards(job, rows.shards)
    del outcomes[SUCCESS]
    pieces = Pieces(rows.asked, rows.failures + outcomes, rows.shards, fetched)
    try:
        stop_if_too_many(plan, pieces.failures, pieces.asked)
    except Exception:
        # img2dataset would call them done: an outage must not be remembered for ever.
        forget_failed(job, rows.shards, config.max_rejected)
        raise
    return pieces


@step("embed {plan.config.name}")
def embed(plan: Plan, pieces: Pieces) -> Any:
    """Read the shards -> image and text embeddings, metadata."""
    from index_build.embed import embed_shards
    from index_build.shards import downloaded_shard, folder_shard
    from xmore.encoders import load_encoder, pick_device

    def shard(number: int) -> Any:
        if plan.pairs:
            return folder_shard(plan.pairs, plan.config.shard_rows, number)
        return downloaded_shard(plan.rows_folder, plan.images_folder, number)

    encoder = load_encoder(plan.model, pick_device(plan.config.execution.device))
    embedded = embed_shards(
        shard, pieces.shards, plan.features_folder, encoder, plan.config.execution
    )
    stop_if_too_many(plan, pieces.failures + embedded.failures, pieces.asked)
    return embedded


@step("index {plan.config.name}")
def index(plan: Plan) -> dict[str, Any]:
    """Read the image embeddings -> the index, tuned, and its recall."""
    from index_build.index import build_index

    return build_index(plan.features_folder, plan.config.index)


@step("publish {plan.config.name}")
def publish(plan: Plan, pieces: Pieces, embedded: Any, index: dict[str, Any]) -> Snapshot:
    """Verify what was made, and make it the memory's CURRENT snapshot."""
    from index_build import snapshot as build
    from xmore.memory import open_snapshot

    failures = pieces.failures + embedded.failures
    facts = {
        "source": str(plan.source),
        "pictures": _pictures(plan),
        "asked": pieces.asked,
        "rows": embedded.rows,
        "dim": embedded.dim,
        "failures": dict(failures.most_common()),
        "without_caption": embedded.without_caption,
        "index": index,
    }
    files = build.hash_files(plan.features_folder)
    made = build.write_manifest(plan, files, facts)
    return open_snapshot(plan.config.memory, build.publish(plan, made))


def _pictures(plan: Plan) -> dict[str, str]:
    """Where the rows' images are, for those who want to look at one."""
    if plan.pairs:
        return {"folder": str(plan.pairs.folder)}
    return {"rows": plan.rows_folder.name, "tars": plan.images_folder.name}
