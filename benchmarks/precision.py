"""How many answers a precision changes: two runs of one config, whose models compute otherwise.

    xmore benchmark configs/demo.yaml
    xmore benchmark configs/demo.yaml --set precision=fp16
    python benchmarks/precision.py RUN OTHER [RESULTS]

For each model and method: the answers (images x orders), and how many differ between the runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from xmore.files.paths import RESULTS
from xmore.results.runs import load_run
from xmore.results.views import open_views

KEY = ["model", "method", "adjustment", "m", "seed", "dataset", "query_id"]


def main(run: str, other: str, results: Path) -> None:
    """Print a line for each model and method."""
    one, two = (answers(name, results) for name in (run, other))
    if not one.index.equals(two.index):
        sys.exit(f"{run} and {other} have not answered the same questions")
    changed = (one != two).groupby(level=["model", "method", "adjustment"], dropna=False)
    for (model, method, adjustment), each in changed:
        name = f"{model}, {method}{'' if adjustment != adjustment else f' {adjustment}'}"
        print(f"{name}: {each.sum()} of {len(each)} answers changed, {100 * each.mean():.1f} %")


def answers(name: str, results: Path):
    """Return the class that each method predicts, by KEY."""
    views = open_views(load_run(results, name))
    found = views.sql(f"select {', '.join(KEY)}, prediction from predictions order by all").df()
    return found.set_index(KEY)["prediction"]


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:3], Path(sys.argv[3]) if len(sys.argv) > 3 else RESULTS)
