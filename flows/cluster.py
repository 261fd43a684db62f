"""Subflows that hand shards to a cluster."""

from __future__ import annotations

from prefect import flow

from index_build.batches import Batch
from index_build.plan import Plan
from tasks.cluster import embed_share, task_runner
from xmore.config import ClusterConfig

PIECES = 4  # tasks a worker: few enough that loading the model costs little, and none waits long


def embed_on_cluster(plan: Plan, batch: Batch, numbers: list[int], cluster: ClusterConfig) -> int:
    """Embed a batch's shards on a cluster whose machines all see the memory -> rows embedded.

    Each shard is written whole by whoever embeds it, as on one machine: a killed run goes on at
    its shards. Raises ConfigError.
    """
    pieces = min(len(numbers), PIECES * cluster.workers)
    shares = [numbers[i::pieces] for i in range(pieces)]
    return _embed.with_options(task_runner=task_runner(cluster))(plan, batch, shares)


@flow(name="xmore-embed", validate_parameters=False, persist_result=False)
def _embed(plan: Plan, batch: Batch, shares: list[list[int]]) -> int:
    model, execution = plan.model, plan.config.execution
    futures = [embed_share.submit(batch, share, model, execution) for share in shares]
    return sum(future.result() for future in futures)
