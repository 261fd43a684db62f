"""A task's calls on this machine, or on the workers of a Dask or Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from prefect import Task, flow

from xmore.config.execution import ExecutionConfig
from xmore.files.errors import ConfigError
from xmore.files.progress import counting


def check_runner(execution: ExecutionConfig) -> None:
    """Raise ConfigError where the config names a runner that cannot be used here."""
    runner = execution.runner
    if runner == "local":
        return
    if find_spec(f"prefect_{runner}") is None:
        raise ConfigError(
            f"`execution.runner: {runner}` needs prefect-{runner}, which is not installed: pip "
            f"install 'xmore[{runner}]', or set `runner: local`."
        )
    if execution.address and not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            f"`execution.address` is {execution.address}: workers elsewhere report to a Prefect "
            "server. Set PREFECT_API_URL to one that they reach, or leave `address` out."
        )


def spread(task: Task[..., Any], calls: Sequence[tuple[Any, ...]], how: ExecutionConfig) -> list:
    """The results of `task(*call)` for all calls, in their order.

    With a runner, each call is a task run of one subflow, `<task>-spread`; calls must not change
    the same files. Raises what a call raised: the others are done first, and stay done.
    """
    if how.runner == "local" or not calls:
        return [task(*call) for call in calls]

    @flow(name=f"{task.name}-spread", task_runner=_task_runner(how), persist_result=False)
    def spread_out() -> list:
        futures = [task.submit(*call) for call in calls]
        with counting(f"{task.name} on {how.runner}", len(futures), "task") as done:
            for number, future in enumerate(futures):
                future.wait()
                done(number + 1)
        return [future.result() for future in futures]

    with _server(), _kept_environment():
        return spread_out()


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Undo what a runner leaves in this process's environment.

    Dask tells its workers by way of it to use one thread each (OMP_NUM_THREADS and its like); all
    that this process starts afterwards would do the same, with other last bits.
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

        # Of its some thirty lines a cluster none is for a user.
        logging.getLogger("distributed").setLevel(logging.WARNING)
        # A daemonic worker may not start the processes that decode images.
        dask.config.set({"distributed.worker.daemon": False})
        here = {"n_workers": how.runners, "threads_per_worker": 1, "dashboard_address": None}
        return DaskTaskRunner(address=how.address, cluster_kwargs=None if how.address else here)
    from prefect_ray import RayTaskRunner

    here = {"num_cpus": how.runners, "include_dashboard": False, "log_to_driver": False}
    return RayTaskRunner(address=how.address, init_kwargs=None if how.address else here)


@contextmanager
def _server() -> Iterator[None]:
    """Where no server is named, one that ends with the work.

    Prefect would start one in this process's name, and another in each worker's.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return
    server = SubprocessASGIServer()
    server.start()
    try:
        # Logs are sent late, when this server is gone.
        here = {PREFECT_API_URL: server.api_url, PREFECT_LOGGING_TO_API_ENABLED: False}
        with temporary_settings(here):
            yield
    finally:
        server.stop()
