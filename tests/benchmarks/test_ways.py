"""The benchmarks that compare a way with the one it replaced, small: both give the same."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WAYS = {
    "retrieval.py": {"pairs": 1, "scan": 1},
    "publishing.py": {"changes": 1, "source": 2, "hashing": 1, "tasks": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize(("file", "part"), [(f, part) for f in WAYS for part in WAYS[f]])
def test_five_thousand_rows(file, part):
    command = [sys.executable, BENCHMARKS / file, part, "5000"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    lines = [line for line in answer.stdout.splitlines() if " -> " in line]
    assert len(lines) == max(1, WAYS[file][part])
    assert sum(line.endswith(": True") for line in lines) == WAYS[file][part]
