"""A real Prefect server and worker: both deployments, their artifacts, the schedule."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect_api import Server
from sharing import free_port

from flows.benchmark import xmore_benchmark
from flows.cli import services
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import absolute, load_config
from xmore.config.memory import ReindexConfig
from xmore.config.reco import RecoTrainConfig
from xmore.files.errors import ServiceError

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = {
    "xmore-benchmark": ("demo.yaml", BenchmarkConfig),
    "xmore-reindex": ("demo-memory.yaml", ReindexConfig),
    "xmore-reco-train": ("demo-reco.yaml", RecoTrainConfig),
}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_deployments_parameters_are_the_demos_configs(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    parameters = next(d for d in deployments if d["name"] == name)["parameters"]["params"]
    file, kind = DEPLOYMENTS[name]
    assert absolute(kind.model_validate(parameters)) == load_config(ROOT / "configs" / file, kind)


def test_the_form_of_a_benchmark_requires_no_memory():
    form = parameter_schema(xmore_benchmark.fn)
    kinds = form.definitions
    assert set(kinds["BenchmarkConfig"]["required"]) == {"datasets", "roles"}
    assert kinds["RolesConfig"]["required"] == ["inference"]


def prefect(server: Server, *arguments, cwd) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("prefect")), *arguments]
    environment = os.environ | {"PREFECT_API_URL": server.api, "PREFECT_HOME": str(cwd / "home")}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def watched(server: Server, name: str, config, cwd) -> None:
    before = server.states(name)["COMPLETED"]
    params = f"params={config.model_dump_json(exclude_unset=True)}"
    watching = ("--watch", "--watch-interval", "1", "--param", params)
    answer = prefect(server, "deployment", "run", f"{name}/{name}", *watching, cwd=cwd)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert server.states(name)["COMPLETED"] == before + 1


def test_both_deployments_run_from_anywhere_and_leave_their_artifacts(server, world, web, tmp_path):
    urls = web.url_list(tmp_path / "urls.parquet", [(web.url("images/gone.jpg"), "gone")], rows=120)
    memory = tmp_path / "memory"
    watched(server, "xmore-reindex", world.url_config(urls, memory), tmp_path)
    card = server.artifact("snapshot-memory")
    assert card["type"] == "markdown"
    for part in ("| requested rows | 121 |", "| rows in the memory | 120", "| HTTP 404 | 1 |"):
        assert part in card["data"]
    assert "120 rows, index Flat" in server.log() and "121 rows failed: HTTP 404" in server.log()
    config = world.config(tmp_path / "results", memory=memory, report=True)
    watched(server, "xmore-benchmark", config, tmp_path)
    assert "query_embeddings tiny, lite0: 20 rows, " in server.log()
    assert "predictions tiny, lite0, clip: 20 rows" in server.log()
    assert " s in its stages. Report: " in server.log() and "clip, M=" not in server.log()
    board = server.artifact("leaderboard-tiny")
    assert board["type"] == "table" and '"method": "xmore minmax"' in board["data"]
    (linked,) = re.findall(r"\(/artifacts/artifact/(\S+)\)", board["description"])
    assert linked == server.artifact("snapshot-memory")["id"] != card["id"]
    assert "\\* is significant (p \\< 0.05" in board["description"]
    pairs = server.artifact("comparisons-tiny")
    assert pairs["type"] == "table" and '"over": "clip"' in pairs["data"]
    (page,) = (tmp_path / "results" / "runs").glob("*/report/report.html")
    report = server.artifact("report-tiny")
    assert f"`{page}`" in report["description"] and "file:" not in report["data"]
    assert (
        "xmore minmax (M = 8) predicts" in report["data"] and "](data:image/svg" in report["data"]
    )
    assert server.tasks_log() and "Finished in state Completed()" not in server.tasks_log()


def test_a_name_without_a_slash_is_refused_by_prefect(server, tmp_path):
    answer = prefect(server, "deployment", "run", "xmore-benchmark", cwd=tmp_path)
    assert answer.returncode != 0
    assert "<FLOW_NAME>/<DEPLOYMENT_NAME>" in answer.stdout + answer.stderr


@pytest.mark.slow
def test_the_second_of_two_reindexes_is_cancelled(server, world, tmp_path):
    deployment = server.deployment("xmore-reindex")
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    before = server.states("xmore-reindex")
    memory = shutil.copytree(world.root / "memory", tmp_path / "memory")
    config = world.memory_config(memory=memory)
    run = {"parameters": {"params": config.model_dump(mode="json", exclude_unset=True)}}
    for _ in range(2):
        server.post(f"deployments/{deployment['id']}/create_flow_run", run)
    server.wait("xmore-reindex", before + Counter({"COMPLETED": 1, "CANCELLED": 1}))


def test_the_schedule_fires_once_it_is_switched_on(server, world, tmp_path):
    deployment = server.deployment("xmore-reindex")
    (weekly,) = deployment["schedules"]
    assert (weekly["active"], weekly["schedule"]["timezone"]) == (False, "UTC")
    before = server.states("xmore-reindex")
    config = world.memory_config(memory=tmp_path / "memory")
    soon = datetime.now(UTC) + timedelta(seconds=12)
    schedule = {  # rarely: each run is a process that imports all anew
        "schedule": {"interval": 120, "anchor_date": soon.isoformat(), "timezone": "UTC"},
        "active": True,
        "parameters": {"params": config.model_dump(mode="json", exclude_unset=True)},
    }
    (made,) = server.post(f"deployments/{deployment['id']}/schedules", [schedule])
    try:
        server.wait("xmore-reindex", before + Counter({"COMPLETED": 1}))
    finally:
        httpx.delete(f"{server.api}/deployments/{deployment['id']}/schedules/{made['id']}")
    assert (tmp_path / "memory" / "CURRENT").exists()


@pytest.mark.parametrize("yaml_changed", [False, True])
def test_up_again_changes_nothing_that_runs(server, yaml_changed):
    before = services._services()
    deployment = server.deployment("xmore-reindex")
    (weekly,) = deployment["schedules"]
    place = f"deployments/{deployment['id']}"
    server.ask("PATCH", f"{place}/schedules/{weekly['id']}", {"active": True})
    server.ask("PATCH", place, {"description": "mine"})
    if yaml_changed:
        (services.HOME / "deployed.json").write_text("{}")
    assert services.up(free_port()) == (server.api, [])
    assert services._services() == before
    after = server.deployment("xmore-reindex")
    server.ask("PATCH", f"{place}/schedules/{weekly['id']}", {"active": False})
    assert [each["active"] for each in after["schedules"]] == [True]
    assert (after["description"] == "mine") is not yaml_changed


def test_a_taken_port_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(services, "HOME", tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} is taken.*--port"):
            services.up(port)
    assert not services._services()
