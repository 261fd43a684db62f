"""Run a step's calls on this machine, or on the workers of a Dask or Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

from tasks.stage import Step
from xmore.config.execution import ExecutionConfig
from xmore.files.errors import ConfigError
from xmore.files.progress import counting


def check_runner(execution: ExecutionConfig) -> None:
    """Raise ConfigError if the config names a runner that this installation cannot use."""
    runner = execution.runner
    if runner == "local":
        return
    if find_spec(f"prefect_{runner}") is None:
        raise ConfigError(
            f"`execution.runner: {runner}` needs prefect-{runner}, which is not installed. Run pip "
            f"install 'xmore[{runner}]', or set `runner: local`."
        )
    if execution.address and not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            f"`execution.address` is {execution.address}: remote workers report to a Prefect "
            "server. Set PREFECT_API_URL to one that they can reach, or remove `address`."
        )


def spread(step: Step, calls: Sequence[tuple[Any, ...]], how: ExecutionConfig) -> list:
    """Return the results of `step(*call)` for all calls, in their order.

    With a cluster's runner, each call is a task run of one subflow, `<step>-spread`; calls must
    not change the same files. If a call raises, its error is raised after all others have ended.
    """
    if how.runner == "local" or not calls:
        return [step(*call) for call in calls]

    from prefect import flow

    task = step.task

    @flow(name=f"{task.name}-spread", task_runner=_task_runner(how), persist_result=False)
    def spread_out() -> list:
        with _gpu_of_each_task(how):
            futures = [task.submit(*call) for call in calls]
        with counting(f"{task.name} on {how.runner}", len(futures), "task") as done:
            for number, future in enumerate(futures):
                future.wait()
                done(number + 1)
        return [future.result() for future in futures]

    with prefect_server(), _kept_environment():
        return spread_out()


def _gpu_of_each_task(how: ExecutionConfig) -> AbstractContextManager[Any]:
    """Return a block in which Ray gives each task a GPU, which it otherwise hides from all."""
    if how.runner != "ray" or how.device == "cpu":
        return nullcontext()
    import ray
    from prefect_ray.context import remote_options

    return remote_options(num_gpus=1) if ray.cluster_resources().get("GPU") else nullcontext()


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Restore this process's environment variables, which a runner changes.

    Dask sets OMP_NUM_THREADS and the like so that its workers use one thread each. Everything that
    this process starts afterwards would do the same, with other last bits.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _task_runner(how: ExecutionConfig) -> Any:
    if how.runner == "dask":
        import dask
        from prefect_dask import DaskTaskRunner

        # It logs some thirty lines per cluster, none of them for users.
        logging.getLogger("distributed").setLevel(logging.WARNING)
        # A daemonic worker may not start the processes that decode images.
        dask.config.set({"distributed.worker.daemon": False})
        local = {"n_workers": how.runners, "threads_per_worker": 1, "dashboard_address": None}
        return DaskTaskRunner(address=how.address, cluster_kwargs=None if how.address else local)
    from prefect_ray import RayTaskRunner

    local = {"num_cpus": how.runners, "include_dashboard": False, "log_to_driver": False}
    return RayTaskRunner(address=how.address, init_kwargs=None if how.address else local)


@contextmanager
def prefect_server() -> Iterator[None]:
    """Start a Prefect server for as long as the block runs, unless one is configured.

    Otherwise Prefect would start one for this process and another for each worker.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return
    server = SubprocessASGIServer()
    server.start()
    try:
        # Logs are sent late, after this server has stopped.
        settings = {PREFECT_API_URL: server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}
        with temporary_settings(settings):
            yield
    finally:
        server.stop()
