"""The flow under a real Prefect server, and runs that go on."""

import asyncio
import json

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from sharing import unsealed

from flows.benchmark import xmore_benchmark
from xmore.files.errors import ConfigError, RunError, SnapshotError
from xmore.results.runs import all_runs, load_run


async def _states(name):
    named = FlowRunFilter(name={"any_": [name]})
    async with get_client() as client:
        flows = await client.read_flow_runs(flow_run_filter=named)
        tasks = await client.read_task_runs(flow_run_filter=named)
        return [(f.name, f.state_name) for f in flows], {t.name: t.state_name for t in tasks}


def test_under_prefect_the_flow_and_its_tasks_are_named_and_complete(
    done_again, prefect_server, tmp_path
):
    settings = {PREFECT_API_URL: prefect_server, PREFECT_LOCAL_STORAGE_PATH: tmp_path}
    with temporary_settings(settings):
        xmore_benchmark(done_again.model_copy(update={"name": "watched"}))
        flows, tasks = asyncio.run(_states("watched"))
    assert flows == [("watched", "Completed")]
    assert set(tasks.values()) == {"Completed"}
    assert {"queries tiny", "candidates tiny", "scores tiny, lite0, M=8"} <= set(tasks)
    assert not list(tmp_path.iterdir())  # nothing is persisted by Prefect


def test_a_second_run_skips_every_stage_and_shares_its_artifacts(done, done_again):
    name = xmore_benchmark.fn(done_again)
    first, second = load_run(done.config.results, done.name), load_run(done_again.results, name)
    assert all(ref.skipped for ref in second.artifacts)
    assert [r.digest for r in first.artifacts] == [r.digest for r in second.artifacts]
    assert first.status == second.status == "completed"


def test_a_resumed_run_keeps_its_snapshot(done, world, tmp_path):
    config = world.config(tmp_path)
    name = xmore_benchmark.fn(config)
    path = tmp_path / "runs" / name / "run.json"
    data = json.loads(path.read_text()) | {"finished": None, "artifacts": []}
    path.write_text(json.dumps(unsealed(data)))
    assert load_run(tmp_path, name).status == "interrupted"
    elsewhere = config.model_copy(update={"memory": tmp_path / "no-memory"})
    assert xmore_benchmark.fn(elsewhere, resume=name) == name
    again = load_run(tmp_path, name)
    assert again.status == "completed" and again.snapshot == data["snapshot"]
    assert len(all_runs(tmp_path)) == 1


def test_a_failed_run_says_so(world, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.jpg").write_text("no image")
    card = tmp_path / "card.yaml"
    card.write_text("name: x\nroot: images\n")
    with pytest.raises(Exception, match="2 of 2 images"):
        xmore_benchmark.fn(world.config(tmp_path, datasets=[str(card)]))
    run = load_run(tmp_path, "latest")
    assert run.status == "failed" and "2 of 2 images" in run.error
    good = xmore_benchmark.fn(world.config(tmp_path))
    with pytest.raises(Exception, match="2 of 2 images"):
        xmore_benchmark.fn(world.config(tmp_path, datasets=[str(card)]))
    assert load_run(tmp_path, "latest").name == good  # the newest that is completed


def test_what_cannot_start_leaves_no_run(world, tmp_path):
    for change, error in (
        ({"memory": tmp_path}, SnapshotError),
        ({"datasets": [str(world.root / "tiny.yaml"), str(tmp_path / "t.yaml")]}, ConfigError),
    ):
        (tmp_path / "t.yaml").write_text("name: tiny\nroot: .\n")
        with pytest.raises(error):
            xmore_benchmark.fn(world.config(tmp_path, **change))
    assert not all_runs(tmp_path)
    with pytest.raises(RunError, match="no runs"):
        load_run(tmp_path, "latest")


def test_a_coarse_model_that_is_not_the_memorys_is_refused(world, tmp_path):
    roles = {"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"}
    with pytest.raises(SnapshotError, match="not the coarse model `lite0`"):
        xmore_benchmark.fn(world.config(tmp_path, roles=roles))


def test_a_model_in_two_roles_is_run_once(world, tmp_path):
    roles = {"inference": ["lite0", "lite2"], "coarse": "lite0-pooled", "fine": "lite2"}
    run = load_run(tmp_path, xmore_benchmark.fn(world.config(tmp_path, roles=roles)))
    models = [ref.model for ref in run.artifacts if ref.stage == "query_embeddings"]
    assert models == ["lite0", "lite2", "lite0-pooled"]
