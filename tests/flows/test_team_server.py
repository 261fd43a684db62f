"""A team's server, as docs/server.md sets it up: two runs at a time, hundreds of task runs."""

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_api import Server
from sharing import free_port

from flows.cli import services
from xmore.config.benchmark import BenchmarkConfig
from xmore.results.runs import load_run

PATIENCE = 1800.0  # seconds, on busy cores
TASKS = 300  # at least so many, of both benchmarks together
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian's, which are in no PATH

pytestmark = pytest.mark.slow


def postgres(folder: Path) -> Iterator[str]:
    """The address of a new PostgreSQL server, as the user `postgres` where we are root."""
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, PROGRAMS), os.environ["PATH"]]))
    if not found:
        pytest.skip("no PostgreSQL here")
    programs, port, data = Path(found).parent, free_port(), folder / "data"
    us = []
    if os.geteuid() == 0:
        us = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    told = {"cwd": folder, "check": True, "capture_output": True}
    subprocess.run([*us, programs / "initdb", "-D", data, "-U", "xmore", "--auth=trust"], **told)
    control = [*us, programs / "pg_ctl", "-D", data, "-l", folder / "log", "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    subprocess.run([*control, "-o", options, "start"], **told, close_fds=True)
    try:
        yield f"postgresql+asyncpg://xmore@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **told)


@pytest.fixture(params=["postgresql", "sqlite"])
def team(request, tmp_path, monkeypatch) -> Iterator[Server]:
    """A server on that database, with a worker."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(services, "HOME", tmp_path / "home")
    monkeypatch.setattr(services, "PORT", free_port())
    with tempfile.TemporaryDirectory() as place:
        database = postgres(Path(place)) if request.param == "postgresql" else iter([""])
        url = next(database)
        if url:
            monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", url)
        try:
            yield Server(services.up(free_port())[0])
        finally:
            services.down()
            next(database, None)


def test_two_benchmarks_and_a_reindex_at_a_time(team, world, web, tmp_path):
    memory = tmp_path / "memory"
    urls = web.url_list(tmp_path / "urls.parquet", [], rows=120)
    start(team, "xmore-reindex", world.url_config(urls, memory))
    team.wait("xmore-reindex", Counter(COMPLETED=1))
    configs = [config_of(world, tmp_path / name, memory) for name in ("one", "other")]
    for config in configs:
        start(team, "xmore-benchmark", config)
    start(team, "xmore-reindex", world.url_config(urls, memory))
    team.wait("xmore-benchmark", Counter(COMPLETED=2), PATIENCE)
    team.wait("xmore-reindex", Counter(COMPLETED=2))
    one, other = (load_run(config.results, "latest") for config in configs)
    assert [ref.digest for ref in one.artifacts] == [ref.digest for ref in other.artifacts]
    states = Counter(run["state"]["type"] for run in task_runs(team))
    print(dict(states))
    assert set(states) == {"COMPLETED"} and states["COMPLETED"] >= TASKS


def config_of(world, results: Path, memory: Path) -> BenchmarkConfig:
    """A benchmark of many stages: a task run each."""
    names = ["lite0", "lite2"]
    return world.config(
        results,
        memory=memory,
        roles={"inference": names, "coarse": "lite0-pooled", "fine": "lite2"},
        retrieval={"candidates": 24, "captions": list(range(1, 25))},
        methods=["clip", "caption-ensemble", "equal", "xmore"],
    )


def start(team: Server, name: str, config) -> None:
    deployment = team.deployment(name)
    parameters = {"params": config.model_dump(mode="json", exclude_unset=True)}
    team.post(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})


def task_runs(team: Server) -> list[dict]:
    found: list[dict] = []
    while page := team.post("task_runs/filter", {"offset": len(found), "limit": 200}):
        found += page
    return found
