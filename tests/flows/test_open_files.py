"""Too few open files: what reads stops in one line, and calls nothing damaged."""

import shutil
from pathlib import Path

import pytest

FEW = """if True:
    import os, resource, sys
    from flows.cli.main import app

    def run():
        try:
            app()
        except SystemExit as end:
            return end.code

    words, most = sys.argv[1:], resource.getrlimit(resource.RLIMIT_NOFILE)
    sys.argv = ["xmore", *words]
    assert run() == 0  # which imports what it needs
    free = os.dup(0)
    os.close(free)
    for more in range(8):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, most[1]))
        code = run()
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
        print("ended with", code)
"""


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["results", "memory"])
def test_too_few_open_files_damage_nothing(warm, done, tmp_path, kind):
    source = {"results": done.config.results, "memory": done.config.memory}[kind]
    folder = shutil.copytree(source, tmp_path / kind)
    words = {"results": ["verify", "--results"], "memory": ["memory", "verify"]}[kind]
    before = files(folder)
    code, said, error = warm.code(FEW, *words, folder, "--all", "--repair").end(120)
    assert code == 0, error
    codes = [line.split()[-1] for line in said.splitlines() if line.startswith("ended with")]
    assert len(codes) == 8 and set(codes) == {"0", "2"}, said + error
    stopped = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(stopped) == codes.count("2")
    assert all("Too many open files" in line for line in stopped), error
    assert files(folder) == before
