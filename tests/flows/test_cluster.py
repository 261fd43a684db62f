"""A re-index whose shards a cluster embeds is that of one process."""

import subprocess
import sys

import pytest
import yaml

from flows.cli import app
from flows.reindex import xmore_reindex
from index_build.batches import list_batches
from xmore.config import ReindexConfig
from xmore.memory import open_snapshot, resolve_current

HERE = {"workers": 1}


def write(config: ReindexConfig, path):
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    return path


@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_two_workers_make_the_same_snapshot(world, tmp_path, runner):
    pytest.importorskip(f"prefect_{runner}")
    alone = world.memory_config(memory=tmp_path / "alone", shard_rows=40)
    cluster = {"runner": runner, "workers": 2}
    shared = world.memory_config(
        memory=tmp_path / "shared", shard_rows=40, execution=HERE | {"cluster": cluster}
    )
    expected = xmore_reindex.fn(alone).snapshot
    # In a process of its own: what a cluster starts and sets ends with it.
    command = [sys.executable, "-c", "from flows.cli import app; app()", "reindex"]
    answer = subprocess.run(
        [*command, str(write(shared, tmp_path / "shared.yaml"))],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    got = open_snapshot(shared.memory, resolve_current(shared.memory))
    assert got.digest == expected.digest
    mine, theirs = (s.manifest["files"] for s in (got, expected))
    assert [f["sha256"] for f in mine] == [f["sha256"] for f in theirs]
    assert len(list_batches(shared.memory)[0].tried()) == 6


def test_a_runner_that_is_not_installed_is_one_line(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    config = world.memory_config(
        memory=tmp_path / "m", execution=HERE | {"cluster": {"runner": "ray"}}
    )
    monkeypatch.setattr(sys, "argv", ["xmore", "reindex", str(write(config, tmp_path / "c.yaml"))])
    with pytest.raises(SystemExit) as stopped:
        app()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "pip install 'xmore[ray]'" in error
    assert error.count("error:") == 1 and not (tmp_path / "m" / "batches").exists()
