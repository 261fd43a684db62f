"""`xmore-reindex`: a memory made, or made anew, from a list of URLs or a folder of images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect import flow

from flows.artifacts import show_snapshot
from index_build.plan import Plan, already_published, make_plan
from index_build.snapshot import point_current
from tasks import reindex as tasks
from tasks.reindex import Pieces
from xmore.config import ReindexConfig, absolute
from xmore.locks import locked
from xmore.memory import Snapshot, open_snapshot


@dataclass(frozen=True)
class Reindexed:
    """What a re-index came to."""

    snapshot: Snapshot
    fetched: int  # shards that this run downloaded
    embedded: int  # shards that this run embedded
    skipped: bool  # the snapshot was there already


@flow(name="xmore-reindex", flow_run_name="{params.name}", persist_result=False)
def xmore_reindex(params: ReindexConfig) -> Reindexed:
    """Select rows, download, embed, index, verify, publish: each step goes on at its shard.

    Running benchmarks keep the snapshot that they began with.

    Args:
        params: Where the pairs come from, which model embeds them, how they are indexed.
    """
    params = absolute(params)
    busy = f"{params.memory}: another re-index of this memory is running; wait for its end."
    with locked(params.memory / ".locks" / "reindex.lock", refuse=busy):
        plan = make_plan(params)
        done = already_published(plan)
        result = _unchanged(plan, done) if done else _made(plan)
    show_snapshot(result.snapshot, params.memory)
    return result


def _unchanged(plan: Plan, name: str) -> Reindexed:
    point_current(plan, name)
    return Reindexed(open_snapshot(plan.config.memory, name), 0, 0, skipped=True)


def _made(plan: Plan) -> Reindexed:
    if plan.pairs:
        count = len(plan.pairs.paths)
        pieces = Pieces(count, Counter(), -(-count // plan.config.shard_rows), 0)
    else:
        pieces = tasks.download(plan, tasks.select_rows(plan))
    embedded = tasks.embed(plan, pieces)
    index = tasks.index(plan)
    snapshot = tasks.publish(plan, pieces, embedded, index)
    return Reindexed(snapshot, pieces.fetched, embedded.embedded, skipped=False)
