"""`kill -9` at random moments: the next run keeps whole parts and ends with equal artifacts."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xmore.store import read_manifest

# Imports once, then forks a child for each config that it is told: a run starts in no time, and
# nothing has run yet when it forks.
STARTER = """
import os, sys
from pathlib import Path
import torch, faiss, xmore.search, xmore.features
from flows.benchmark import xmore_benchmark
from xmore.config import BenchmarkConfig
print("ready", flush=True)
for line in sys.stdin:
    path = line.strip()
    pid = os.fork()
    if pid == 0:
        xmore_benchmark.fn(BenchmarkConfig.model_validate_json(Path(path).read_text()))
        os._exit(0)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""


class Starter:
    def __init__(self, configs: Path):
        self.configs = configs
        self.process = subprocess.Popen(
            [sys.executable, "-c", STARTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline().strip() == "ready"

    def run(self, config, kill_after: float | None = None) -> str:
        path = self.configs / f"{config.results.name}.json"
        path.write_text(config.model_dump_json())
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it was done already
                os.kill(pid, signal.SIGKILL)
        return self.process.stdout.readline().strip()


@pytest.fixture
def starter(tmp_path):
    started = Starter(tmp_path)
    yield started
    started.process.stdin.close()
    started.process.wait(10)


def parts(results: Path) -> dict[str, str]:
    """Every part's sha256, by its place in the store."""
    return {
        str((manifest.parent / part["file"]).relative_to(results)): part["sha256"]
        for manifest in (results / "store").rglob("manifest.json")
        for part in read_manifest(manifest.parent)["parts"]
    }


def inodes(results: Path, names) -> dict[str, int]:
    return {name: (results / name).stat().st_ino for name in names}


def test_killed_runs_end_as_undisturbed_ones(world, tmp_path, starter):
    undisturbed = world.config(tmp_path / "undisturbed")
    begun = time.monotonic()
    assert starter.run(undisturbed) == "0"
    duration = time.monotonic() - begun
    expected = parts(undisturbed.results)
    seed = random.randrange(1 << 32)
    moments, resumed, killed = random.Random(seed), 0, 0
    for i in range(10):
        config = world.config(tmp_path / f"killed-{i}")
        moment = moments.uniform(0, duration)
        killed += starter.run(config, kill_after=moment) == "killed"
        whole = parts(config.results)
        before = inodes(config.results, whole)
        assert starter.run(config) == "0", f"seed {seed}, kill {i} after {moment:.2f} s"
        assert parts(config.results) == expected, f"seed {seed}, kill {i} after {moment:.2f} s"
        after = inodes(config.results, {name.replace(".partial", "") for name in whole})
        assert after == {name.replace(".partial", ""): node for name, node in before.items()}
        resumed += any(".partial" in name for name in whole)
        assert not list(config.results.rglob("*.partial")) and not list(
            config.results.rglob("*.tmp")
        )
    assert killed >= 5 and resumed >= 1, f"seed {seed}: killed {killed}, resumed {resumed}"
