"""Which code is running: the commit, and whether it was changed."""

import subprocess

import pytest

from xmore.files import code as module
from xmore.results.runs import load_run


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one commit, as if it were ours."""
    root = tmp_path / "checkout"
    (root / "xmore").mkdir(parents=True)
    (root / "xmore" / "a.py").write_text("a = 1\n")
    (root / "notes.txt").write_text("no code\n")
    me = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*me, "commit", "-qm", "first")):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    monkeypatch.setattr(module, "PROJECT_ROOT", root)
    module.code.cache_clear()
    yield root
    module.code.cache_clear()


def test_a_commit_as_it_is(checkout):
    (checkout / "notes.txt").write_text("changed, but no code\n")
    found = module.code()
    assert len(found["commit"]) == 40 and found["dirty"] is False
    assert module.version() == f"0.1.0+g{found['commit'][:10]}"


@pytest.mark.parametrize("file", ["a.py", "new.py"])
def test_a_commit_with_changes(checkout, file, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as a hook of another repository has it
    (checkout / "xmore" / file).write_text("a = 2\n")
    assert module.code()["dirty"] and module.version().endswith(".dirty")


@pytest.mark.parametrize("case", ["no git", "no repository", "inside another repository"])
def test_without_a_commit_of_its_own(checkout, case, monkeypatch, tmp_path):
    if case == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif case == "no repository":
        (checkout / ".git").rename(tmp_path / "gone")
    else:
        monkeypatch.setattr(module, "PROJECT_ROOT", checkout / "xmore")
    assert module.code() == {"commit": None, "dirty": None} and module.version() == "0.1.0"


def test_a_run_records_its_code(done):
    run = load_run(done.config.results, done.name)
    assert run.code == module.code() and run.versions["xmore"] == module.version()
