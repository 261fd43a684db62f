"""Shards on more than one process or machine, by Prefect's own Dask and Ray task runners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from index_build.batches import Batch
from xmore.config import ClusterConfig, ExecutionConfig
from xmore.errors import ConfigError
from xmore.models import ModelCard


def task_runner(cluster: ClusterConfig) -> Any:
    """The task runner that `cluster` names. Raises ConfigError where its package is not there.

    Without an address, Dask and Ray start their workers on this machine and end them afterwards.
    """
    try:
        if cluster.runner == "dask":
            from prefect_dask import DaskTaskRunner

            if cluster.address:
                return DaskTaskRunner(address=cluster.address)
            local = {"n_workers": cluster.workers, "threads_per_worker": 1}
            return DaskTaskRunner(cluster_kwargs=local | {"dashboard_address": None})
        from prefect_ray import RayTaskRunner

        if cluster.address:
            return RayTaskRunner(address=cluster.address)
        return RayTaskRunner(init_kwargs={"num_cpus": cluster.workers})
    except ImportError as error:
        raise ConfigError(
            f"`execution.cluster.runner`: {cluster.runner} is not installed ({error.name}). "
            f"Install it: pip install 'xmore[{cluster.runner}]'."
        ) from error


@task(task_run_name="embed {batch.source} {numbers}", cache_policy=NO_CACHE, persist_result=False)
def embed_share(
    batch: Batch, numbers: Sequence[int], model: ModelCard, execution: ExecutionConfig
) -> int:
    """A worker's share of a batch's shards -> how many rows it embedded."""
    # Imported by the worker: what travels to it is this function and its small arguments.
    from index_build.embed import embed_shards
    from xmore.encoders import load_encoder, pick_device

    encoder = load_encoder(model, pick_device(execution.device))
    return embed_shards(batch, numbers, batch.features(model), encoder, execution)
