"""The cost of seven values of M as a multiple of one value's: the demo, twice.

    python benchmarks/sweep.py

One run with M = 16, then one with M = 1, 2, 4, 8, 16, 32, 64, each in an empty results folder, so
that neither finds existing artifacts. A first run is not counted: it warms up the disk and the
libraries. Needs the demo's models and memory (`make demo`); takes a few minutes.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from flows.benchmark import xmore_benchmark
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import change_config
from xmore.files.paths import PROJECT_ROOT
from xmore.results.runs import load_run

DEMO = PROJECT_ROOT / "configs" / "demo.yaml"
SEVEN = [1, 2, 4, 8, 16, 32, 64]


def main() -> None:
    """Measure both and print the ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        one = config(Path(scratch) / "one", [16])
        seven = config(Path(scratch) / "seven", SEVEN)
        seconds(config(Path(scratch) / "warm", [16]))
        alone, together = seconds(one), seconds(seven)
    print(f"M = 16: {alone:.1f} s; seven values of M: {together:.1f} s")
    print(f"ratio {together / alone:.2f}")


def config(results: Path, captions: list[int]) -> BenchmarkConfig:
    """Return the demo's config with these values of M and another results folder."""
    changes = {"results": str(results), "retrieval.captions": captions, "report": False}
    return change_config(DEMO, changes, PROJECT_ROOT)


def seconds(benchmark: BenchmarkConfig) -> float:
    """Run a benchmark -> its wall time; prints the seconds by stage."""
    begun = time.perf_counter()
    name = xmore_benchmark.fn(benchmark)
    spent = time.perf_counter() - begun
    stages: dict[str, float] = {}
    for ref in load_run(benchmark.results, name).artifacts:
        stages[ref.stage] = stages.get(ref.stage, 0) + ref.seconds
    shares = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items() if value >= 0.1)
    print(f"M = {benchmark.retrieval.captions}: {spent:.1f} s ({shares})")
    return spent


if __name__ == "__main__":
    main()
