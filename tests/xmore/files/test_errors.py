"""One line for every error, with what to do."""

import errno
import os
import subprocess
import sys

import duckdb
import pyarrow as pa
import pytest
import torch

from flows.cli import main
from xmore.files import paths
from xmore.files.errors import SnapshotError, one_line
from xmore.store import artifacts


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SnapshotError("a.\nb"), "a. b"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "/x/y: No space left on device. Free disk",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files. Raise the limit"),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "/x"),
            "/x: Is a directory. Complete parts",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "Lower `execution.batch_size`"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "Lower `execution.workers`",
        ),
        (duckdb.OutOfMemoryException("Out of Memory Error: could not allocate"), "Free memory"),
        (MemoryError(), "MemoryError. Free memory"),
        (
            ValueError("odd\nsecond line\x1b[31m"),
            "ValueError: odd. `xmore --debug ...` shows where",
        ),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(error, says):
    line = one_line(error)
    assert says in line and line.isprintable() and "\n" not in line


def test_no_librarys_error_is_a_traceback(xmore, monkeypatch):
    def fails(results):
        raise RuntimeError("a library's own\nerror")

    monkeypatch.setattr("xmore.results.runs.all_runs", fails)
    answer = xmore("runs")
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert answer.stderr.startswith("error: RuntimeError: a library's own. ")
    with pytest.raises(RuntimeError):
        xmore("--debug", "runs")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paths.os, "fsync", full)
    with pytest.raises(OSError, match=str(tmp_path / "whole")):
        paths.write_whole(tmp_path / "whole", b"x")
    assert not list(tmp_path.iterdir())  # a temporary file would keep the disk full
    monkeypatch.setattr(artifacts.pq, "write_table", full)
    with pytest.raises(OSError, match=str(tmp_path / "part")):
        artifacts.write_part(tmp_path / "part", pa.table({"a": [1]}))


def test_another_web_server_is_not_prefects(world, web, xmore, tmp_path, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    config = world.memory_config(memory=tmp_path / "memory")
    (tmp_path / "memory.yaml").write_text(config.model_dump_json())
    with temporary_settings({PREFECT_API_URL: web.url("api").rstrip("/")}):
        answer = xmore("reindex", tmp_path / "memory.yaml")
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
    assert "is no API of Prefect's server" in answer.stderr


HANGS = """
import threading, time
from flows.cli import main
from xmore.files.errors import ServiceError
threading.Thread(target=time.sleep, args=(600,)).start()  # as Prefect's do
def app():
    try:
        raise ServiceError("the server does not respond")
    except ServiceError as error:
        print(f"error: {error}", flush=True)
        raise SystemExit(2) from None
main.app = app
main.main()
"""


def test_a_process_ends_though_prefects_threads_wait(tmp_path):
    command = [sys.executable, "-c", HANGS]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=paths.PROJECT_ROOT
    )
    assert answer.returncode == 2 and answer.stdout == "error: the server does not respond\n"
    assert main.main.__doc__
