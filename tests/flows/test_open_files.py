"""Too few open files: what reads stops in one line, and calls nothing damaged."""

import shutil
from pathlib import Path

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


def test_too_few_open_files_damage_nothing(warm, done, tmp_path):
    folder = shutil.copytree(done.config.memory, tmp_path / "memory")
    before = files(folder)
    code, said, error = warm.code(FEW, "memory", "verify", folder, "--all", "--repair").end(120)
    assert code == 0, error
    codes = [line.split()[-1] for line in said.splitlines() if line.startswith("ended with")]
    assert len(codes) == 8 and set(codes) == {"0", "2"}, said + error
    stopped = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(stopped) == codes.count("2")
    assert all("Too many open files" in line for line in stopped), error
    assert files(folder) == before
