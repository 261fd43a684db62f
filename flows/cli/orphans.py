"""Flow runs whose worker or process is gone: `xmore up` and `xmore down` end them.

Prefect learns of a run's end from the run's process, or from the worker that started it. If both
are killed, the run stays Running, and keeps its deployment's concurrency slot: every later run
would be cancelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

POOL = "xmore"
RUN_ID = b"PREFECT__FLOW_RUN_ID="  # in the environment of a run's process, and of its children
WHY = "Its process is gone: it, its worker or the machine was stopped. Complete parts are kept."
WORKS_ON = "{run} works on without the worker that started it (process {pid})"
UNHEARD = (
    "{run} is {state}, and its worker {worker}, which is not ours, is offline. If it is gone, "
    "free what the run holds: prefect flow-run delete {id}"
)


def end_orphans(api: str, worker: str, alive: bool) -> list[str]:
    """End the runs of our worker that have no process; return a line on each that was found.

    `worker` is what the names of our workers end in, `alive` whether one works. Runs of other
    workers are left, and so are those that have a process on this machine: it reports their end.
    An unreachable server has no runs. Raises what Prefect's client does if the server refuses.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with (
            temporary_settings({PREFECT_API_URL: api}),
            get_client(sync_client=True) as client,
        ):
            return list(_look_at_all(client, worker, alive))
    except httpx.TransportError:
        return []


def _look_at_all(client: SyncPrefectClient, worker: str, alive: bool) -> Iterator[str]:
    found, ended = _active(client), []
    working = running_processes()  # listed after the runs: a run that is listed has begun before
    online = {each.name for each in _workers(client) if each.status.value == "ONLINE"}
    for run in found:
        name = run.labels.get("prefect.worker.name")
        # A run has no worker's name in the first moment after it took its slot.
        ours = str(name).endswith(worker) if name else not alive and not online
        pid = working.get(str(run.id))
        title = f"{client.read_flow(run.flow_id).name} {run.name}"
        if pid and ours and not alive:
            yield WORKS_ON.format(run=title, pid=pid)
        elif not pid and ours and (not alive or run.infrastructure_pid):
            if _end(client, run):
                ended.append(title)
        elif not pid and not ours and name and name not in online:
            yield UNHEARD.format(run=title, state=run.state_name, worker=name, id=run.id)
    if ended:
        runs = "1 run of a worker that was gone was" if len(ended) == 1 else (
            f"{len(ended)} runs of a worker that was gone were"
        )  # fmt: skip
        yield f"{runs} ended: {', '.join(ended)}. Complete parts are kept: run the same again."


def _active(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the runs of our pool that hold a slot."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    holding = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=holding))
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), work_pool_filter=pool)


def _workers(client: SyncPrefectClient) -> list:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_workers_for_work_pool(POOL)
    except ObjectNotFound:  # before the first `up`
        return []


def _end(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Set a run's final state, which frees its slot; returns False if it has one by now."""
    from prefect.states import Cancelled, Crashed

    now = client.read_flow_run(run.id)
    if now.state is None or now.state.is_final():
        return False
    final = Cancelled if now.state.is_cancelling() else Crashed
    client.set_flow_run_state(run.id, final(message=WHY))
    return True


def running_processes() -> dict[str, int]:
    """Return the first process of each flow run on this machine; empty without Linux's /proc."""
    found: dict[str, int] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            for entry in path.read_bytes().split(b"\0"):
                if entry.startswith(RUN_ID) and int(path.parent.name) != os.getpid():
                    found.setdefault(entry.removeprefix(RUN_ID).decode(), int(path.parent.name))
    return found
