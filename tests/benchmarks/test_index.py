"""The index's proof, small: the same steps, processes and code as for a million rows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "index.py"


@pytest.mark.slow
def test_five_thousand_rows():
    command = [sys.executable, BENCHMARK, "5000", "IVF32,SQ8"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # it is small: threads wait for each other
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert "5,000 rows x 384" in answer.stdout and "index IVF32,SQ8 nprobe=" in answer.stdout
    plain, reranked = re.findall(r"^  recall .* ([\d.]+) @128$", answer.stdout, re.M)
    assert 0.9 < float(plain) <= float(reranked) <= 1
    assert all(
        float(mb.replace(",", "")) < 2048 for mb in re.findall(r"peak ([\d,]+)", answer.stdout)
    )
