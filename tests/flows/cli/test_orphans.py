"""Flow runs whose worker or process is gone."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from uuid import uuid4

import pytest
from prefect_api import PATIENCE, Server
from sharing import free_port

from flows.cli import orphans, services
from flows.cli.orphans import end_orphans

OURS = f"here-{uuid4().hex[:8]}"


def begun(server: Server, deployment: str, worker: str | None, *states: str, pid: bool = False):
    """A run that a worker has taken: Pending, then these states."""
    found = server.deployment(deployment)
    of = {"flow_id": found["flow_id"], "deployment_id": found["id"]}
    # Not Scheduled, or the real worker would take it.
    made = of | {"work_pool_name": "xmore", "state": {"type": "FAILED"}}
    run = server.post("flow_runs/", made)["id"]
    for state in ("PENDING", *states):
        answer = server.post(f"flow_runs/{run}/set_state", {"state": {"type": state}})
        assert answer["status"] == "ACCEPT", answer
    if worker:
        labels = {"prefect.worker.name": worker}
        server.ask("PATCH", f"flow_runs/{run}/labels", labels)
    if pid:
        number = {"infrastructure_pid": "1"}
        server.ask("PATCH", f"flow_runs/{run}", number)
    return run


def state(server: Server, run: str) -> str:
    return server.client.get(f"{server.api}/flow_runs/{run}").json()["state"]["type"]


def slots(server: Server) -> int:
    """The slots of the re-index that are taken."""
    limits = server.post("v2/concurrency_limits/filter", {})
    of = f"deployment:{server.deployment('xmore-reindex')['id']}"
    return next(limit["active_slots"] for limit in limits if limit["name"] == of)


@contextmanager
def process_of(run: str):
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": run}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, env=environment) as process:
        until = time.monotonic() + PATIENCE
        while run not in orphans.running_processes() and time.monotonic() < until:
            time.sleep(0.05)
        yield process.pid
        process.kill()


@pytest.fixture
def kept(server):
    """Deletes the runs that a test has made, so that none holds a slot afterwards."""
    before = {run["id"] for run in server.post("flow_runs/filter", {})}
    yield server
    for run in server.post("flow_runs/filter", {}):
        if run["id"] not in before:
            server.client.delete(f"{server.api}/flow_runs/{run['id']}")


def test_a_run_without_worker_and_process_is_ended_and_its_slot_is_free(kept):
    run = begun(kept, "xmore-reindex", OURS, "RUNNING")
    other = begun(kept, "xmore-benchmark", "elsewhere-1", "RUNNING")
    assert slots(kept) == 1
    with process_of(run) as pid:
        lines = end_orphans(kept.api, OURS, alive=False)
        assert [line for line in lines if line.endswith(f"started it (process {pid})")]
        assert state(kept, run) == "RUNNING" and slots(kept) == 1
    ended, foreign = sorted(
        end_orphans(kept.api, OURS, alive=False), key=lambda line: line[0] != "1"
    )
    assert ended.startswith("1 run of a worker that was gone was ended: xmore-reindex ")
    assert state(kept, run) == "CRASHED" and slots(kept) == 0
    assert state(kept, other) == "RUNNING"
    assert "elsewhere-1" in foreign and f"prefect flow-run delete {other}" in foreign
    begun(kept, "xmore-reindex", OURS, "RUNNING")  # the next one is not cancelled


def test_a_run_that_was_to_be_cancelled_is_and_one_that_was_just_taken_is_ended(kept):
    cancelling = begun(kept, "xmore-benchmark", OURS, "RUNNING", "CANCELLING")
    pending = begun(kept, "xmore-benchmark", OURS)
    (line,) = end_orphans(kept.api, OURS, alive=False)
    assert line.startswith("2 runs of a worker that was gone were ended: ")
    assert (state(kept, cancelling), state(kept, pending)) == ("CANCELLED", "CRASHED")


def test_a_worker_that_works_keeps_the_run_that_it_is_starting(kept):
    starting = begun(kept, "xmore-benchmark", OURS)
    lost = begun(kept, "xmore-benchmark", OURS, "RUNNING", pid=True)
    unnamed = begun(kept, "xmore-benchmark", None)
    (line,) = end_orphans(kept.api, OURS, alive=True)
    assert line.startswith("1 run ")
    assert [state(kept, run) for run in (starting, lost, unnamed)] == [
        "PENDING",
        "CRASHED",
        "PENDING",
    ]


def test_a_server_that_is_gone_has_no_runs():
    assert end_orphans(f"http://127.0.0.1:{free_port()}/api", OURS, alive=False) == []


@pytest.mark.slow
def test_up_frees_the_reindex_after_its_worker_and_process_were_killed(
    server, world, web, tmp_path
):
    urls = web.url_list(tmp_path / "urls.parquet", [(web.url("hang"), "hangs")], rows=120)
    config = world.url_config(urls, tmp_path / "memory", download={"timeout": 20})
    run = {"parameters": {"params": config.model_dump(mode="json", exclude_unset=True)}}
    of = server.deployment("xmore-reindex")["id"]
    before = server.states("xmore-reindex")
    made = server.post(f"deployments/{of}/create_flow_run", run)["id"]
    server.wait("xmore-reindex", before + Counter({"RUNNING": 1}))
    worker = next(s for s in services._services() if s.name == "worker")
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(orphans.running_processes()[made], signal.SIGKILL)
    while made in orphans.running_processes():  # its children see that it is gone, and end
        time.sleep(0.2)
    api, lines = services.up(free_port())
    assert api == server.api and "1 run of a worker that was gone was ended" in lines[0]
    server.post(f"deployments/{of}/create_flow_run", run)
    server.wait("xmore-reindex", before + Counter({"CRASHED": 1, "COMPLETED": 1}))
