"""The size of a report as its run grows: the demo's, and one of ImageNet's size made from it.

    python benchmarks/report.py [QUERIES]

The demo's queries, candidates and captions are repeated to 50,000 queries of 1,000 classes. Scores
are the demo's with noise; the added classes take a small share of each. Predictions of six methods,
metrics and comparisons are computed by their own stages. Each report is written in a separate
process. Needs a run of the demo (`make demo`), some minutes, and 1 GB of disk.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.comparisons import DatasetAnswers, comparisons
from tasks.metrics import Scored, metrics
from tasks.predictions import MethodRun, ScoreSource, predictions
from tasks.score_rows import ScoreRows
from tasks.stage import Workspace
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.execution import ExecutionConfig
from xmore.config.load import load_config
from xmore.files.paths import PROJECT_ROOT
from xmore.methods.base import MethodRequest
from xmore.methods.registry import MethodRef
from xmore.methods.scoring import confidence
from xmore.results.runs import Run, load_run, start_run, under_way
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows

CLASSES = 1000
PART = 1024
OWN = ("calip", "tpt")  # methods beside the demo's four
DRAW = """
import resource, sys
from pathlib import Path
from xmore.report.page import write_report
from xmore.results.runs import load_run
page = write_report(load_run(Path(sys.argv[1]), "latest"), Path(sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{page.stat().st_size / 1e6:.1f} MB, peak {peak:,.0f} MB")
"""


def main(queries: int) -> None:
    """Write both reports and print their sizes."""
    demo = load_run(PROJECT_ROOT / "results", "demo")
    with tempfile.TemporaryDirectory() as scratch:
        large = enlarge(demo, Path(scratch) / "results", queries)
        for name, results in (("demo", PROJECT_ROOT / "results"), (f"{queries:,} queries", large)):
            begun = time.perf_counter()
            command = [sys.executable, "-c", DRAW, str(results), str(Path(scratch) / name)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"{name}: {printed.strip()}, {time.perf_counter() - begun:.1f} s")


def enlarge(demo: Run, results: Path, queries: int) -> Path:
    """Write a run like the demo's with this many queries, in `results`."""
    config = load_config(PROJECT_ROOT / "configs" / "demo.yaml", BenchmarkConfig)
    work = Workspace(results, ExecutionConfig(part_rows=PART))
    rng = np.random.default_rng(0)
    old = {(ref.stage, ref.model): ref for ref in demo.artifacts}
    run = start_run(config.model_copy(update={"results": results}), demo.snapshot)
    with under_way(run):
        listed = repeat(work, old["queries", None], queries)
        classes = more_classes(work, old["classes", None])
        run.artifacts += [listed, classes, repeat(work, old["rejected", None], 0)]
        run.artifacts += [
            repeat(work, ref, queries)
            for (stage, _), ref in old.items()
            if stage in ("candidates", "captions")
        ]
        scored = []
        for model in config.roles.inference:
            ref = noisy_scores(work, old["scores", model], queries, rng)
            run.artifacts.append(ref)
            rows = ScoreRows(ref)
            for name in (*config.methods, *OWN):
                request = MethodRequest(ref.dataset, 128, None if name in ("clip", *OWN) else 16)
                how = MethodRun(
                    MethodRef(name), request, tuple(config.adjustments), tuple(config.seeds)
                )
                own = own_scores(work, rows, name) if name in OWN else None
                source = ScoreSource(ref, own, rows=rows)
                scored.append(Scored(how, ref, predictions(work, source, how)))
        measured = metrics(work, listed, classes, scored)
        compared = comparisons(work, [DatasetAnswers(listed, scored)])
        run.artifacts += [*(each.predictions for each in scored), measured, compared]
    for ref in (*(each.predictions for each in scored), measured, compared):
        print(f"{ref.stage} {ref.model or ''}: {ref.seconds:.1f} s, {ref.peak_rss_mb:,.0f} MB")
    return results


def repeat(work: Workspace, ref: ArtifactRef, queries: int) -> ArtifactRef:
    """Write an artifact with `ref`'s rows repeated, and new query_ids."""
    table = read_rows(ref).combine_chunks()

    def part(start: int, stop: int) -> pa.Table:
        rows = table.take(pa.array(np.arange(start, stop) % max(len(table), 1), pa.int64()))
        if "query_id" not in rows.column_names:
            return rows
        ids = pa.array(np.arange(start, stop), pa.int64())
        return rows.set_column(rows.column_names.index("query_id"), "query_id", ids)

    key = ArtifactKey(ref.stage, ref.dataset, {"of": ref.digest, "n": queries}, (), ref.model)
    return work.store.write(key, parts(queries), part)


def more_classes(work: Workspace, ref: ArtifactRef) -> ArtifactRef:
    """Write the demo's classes, and others up to CLASSES."""
    rows = read_rows(ref).to_pylist()
    for label in range(len(rows), CLASSES):
        name, prompt = f"another class {label}", f"a photo of another class {label}."
        rows.append({"label": label, "class_name": name, "prompt": prompt, "prompts": [prompt]})
    key = ArtifactKey("classes", ref.dataset, {"n": CLASSES})
    return work.store.write(
        key, [1], lambda start, stop: pa.Table.from_pylist(rows, schema=schemas.CLASSES)
    )


def noisy_scores(
    work: Workspace, ref: ArtifactRef, queries: int, rng: np.random.Generator
) -> ArtifactRef:
    """Write the demo's scores with noise, over CLASSES classes."""
    table = read_rows(ref)
    image, text = (schemas.to_matrix(table[f"{of}_scores"]) for of in ("image", "text"))

    def part(start: int, stop: int) -> pa.Table:
        which = np.arange(start, stop) % len(image)
        new = [noisy(scores[which], rng) for scores in (image, text)]
        return pa.table(
            {
                "query_id": np.arange(start, stop),
                "image_scores": schemas.matrix_lists(new[0]),
                "text_scores": schemas.matrix_lists(new[1]),
                "image_confidence": confidence(new[0]),
                "text_confidence": confidence(new[1]),
                "caption_count": np.full(stop - start, 16, np.int32),
                "truncated_count": np.zeros(stop - start, np.int32),
            }
        ).cast(schemas.SCORES)

    key = ArtifactKey("scores", ref.dataset, {"m": 16, "n": queries}, (ref.digest,), ref.model)
    return work.store.write(key, parts(queries), part)


def noisy(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise and classes to (N, C) probabilities -> (N, CLASSES) float32 probabilities."""
    n, c = scores.shape
    logits = np.log(np.maximum(scores, 1e-12)) + rng.standard_normal((n, c))
    others = rng.normal(logits.min(1, keepdims=True), 1, (n, CLASSES - c))
    logits = np.concatenate([logits, others], 1)
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return (exp / exp.sum(1, keepdims=True)).astype(np.float32)


def own_scores(work: Workspace, rows: ScoreRows, method: str) -> ArtifactRef:
    """Write image scores as those of a method that computes its own."""

    def part(start: int, stop: int) -> pa.Table:
        found = rows.of(start, stop)
        columns = {
            "query_id": found.ids,
            "method": [method] * len(found.ids),
            "class_scores": schemas.matrix_lists(found.scores.image),
        }
        return pa.table(columns).cast(schemas.METHOD_SCORES)

    key = ArtifactKey("method_scores", rows.ref.dataset, {"m": method}, (rows.ref.digest,), None)
    return work.store.write(key, parts(rows.ref.rows), part)


def parts(queries: int) -> list[int]:
    """Return the sizes of an artifact's parts."""
    return [min(PART, queries - start) for start in range(0, queries, PART)] or [0]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
