"""One line for every error, with what to do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import torch
from unprivileged import unprivileged

from flows.cli import main
from index_build.sources import folder
from xmore.files import paths
from xmore.files.errors import SnapshotError, cause_of, one_line
from xmore.images import readers
from xmore.images.decode import read_image
from xmore.images.readers import Files, Tars
from xmore.results import views
from xmore.results.runs import load_run
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
            "/x: Is a directory. Move away what is in its place. Complete parts",
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


def test_a_file_that_may_not_be_read_is_to_be_made_readable(tmp_path):
    (tmp_path / "x").touch(mode=0o200)
    with unprivileged(), pytest.raises(PermissionError) as caught:
        (tmp_path / "x").read_bytes()
    with unprivileged():
        assert "x: Permission denied. Make it readable. " in one_line(caught.value)


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


def test_a_lack_of_descriptors_is_no_images_fault(world, xmore, tmp_path, monkeypatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x.jpg")

    path = next((world.root / "queries").rglob("*.jpg"))
    reader = Tars(path.parent, {path.name: (path.name, 0, 3)})
    config = world.memory_config(memory=tmp_path / "memory", cache=tmp_path / "cache")
    (tmp_path / "memory.yaml").write_text(config.model_dump_json())
    monkeypatch.setattr(Path, "read_bytes", none_left)
    for read in (read_image, Files(path.parent).read):
        with pytest.raises(OSError, match="Too many open files"):
            read(path)
    monkeypatch.undo()
    monkeypatch.setattr(readers, "read_at", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        reader.read(path.name)
    monkeypatch.setattr(folder, "digest_file", none_left)
    answer = xmore("reindex", tmp_path / "memory.yaml")
    assert answer.returncode == 2 and "Too many open files. Raise the limit" in answer.stderr
    assert not (tmp_path / "memory" / "CURRENT").exists()


def test_a_lack_of_memory_is_no_damage(done, monkeypatch):
    class Full:
        def execute(self, query):
            if "view" in query:
                raise duckdb.OutOfMemoryException("could not allocate block of 1 GB")

    monkeypatch.setattr(views.duckdb, "connect", Full)
    with pytest.raises(duckdb.OutOfMemoryException):
        views.open_views(load_run(done.config.results, done.name))


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
        raise KIND("the server does not respond")
    except KIND as error:
        print(f"error: {error}", flush=True)
        raise SystemExit(2) from None
main.app = app
main.main()
"""


@pytest.mark.parametrize("kind", ["ServiceError", "ImportError"])
def test_a_process_ends_though_a_librarys_threads_wait(kind):
    command = [sys.executable, "-c", HANGS.replace("KIND", kind)]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=paths.PROJECT_ROOT
    )
    assert answer.returncode == 2 and answer.stdout == "error: the server does not respond\n"
    assert main.main.__doc__


ENDS = """
import atexit, threading, time
from flows.cli import main
class Kept:
    def __del__(self):
        print("taken apart", flush=True)
kept = Kept()
def late():
    time.sleep(0.2)
    print("thread")
def app():
    atexit.register(print, "handler")
    threading.Thread(target=late).start()
    print("done")
    HOW
main.app = app
main.main()
"""


@pytest.mark.parametrize(
    ("how", "code"), [("raise SystemExit(7)", 7), ("raise SystemExit", 0), ("1 / 0", 1)]
)
def test_a_process_waits_for_threads_and_handlers_and_ends_at_once_then(how, code):
    command = [sys.executable, "-c", ENDS.replace("HOW", how)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=paths.PROJECT_ROOT)
    assert (answer.returncode, answer.stdout) == (code, "done\nthread\nhandler\n"), answer
    assert answer.stderr.count("ZeroDivisionError") == (code == 1)


def test_a_long_complaint_keeps_its_end():
    told = cause_of(RuntimeError(f"could not open {'/far' * 200}/image.index: Too many open files"))
    assert len(told) < 330 and told.endswith("image.index: Too many open files") and " … " in told
