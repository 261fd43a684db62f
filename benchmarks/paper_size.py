"""A whole re-index and benchmark at the paper's size: what each stage takes, and what grows.

    python benchmarks/paper_size.py [ROWS] [QUERIES] [--folder FOLDER]

50,000 queries of 1,000 classes and a memory of ROWS x 128 float16 (default 1,000,000) with captions
of 60 characters, in clusters. Our own re-index takes it from a clip-retrieval folder and builds an
IVF4096,SQ8 index, which is searched for 2 K and re-ranked. Two inference models, the paper's four
methods, three seeds. Embeddings are generated, so that no model is run: of images from their class,
of texts from the class that they name. Everything else is the project's own: images are listed and
decoded, texts go through the text store, Parquet is written.

Prints for each step: calls, seconds, CPU seconds, the peak of its resident memory without mapped
files, and the bytes that it read and wrote by calls (mapped files aside). 1,000,000 rows take about
ten minutes and 6 GB of disk, 10,000,000 an hour and 30 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from retrieval import unit
from safetensors.numpy import save_file

import tasks.query_embeddings
from tasks.pixels import Span, Stream
from tasks.stage import Step
from tasks.texts import TextEncoder
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.memory import ReindexConfig
from xmore.models.encoder import TextFeatures

DIM, CLASSES, SHARD = 128, 1000, 250_000
MODELS = ("coarse", "fine", "one", "other")
NOISE = 1.0  # length of what features differ by from the centre of their class
INNER = 12  # dimensions of these differences: as real ones, they are not random in all
NOISES = 1 << 16  # different ones


@dataclass
class Spent:
    """What the calls of one step took together."""

    calls: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    peak_mb: float = 0.0
    read: int = 0
    written: int = 0


def main(rows: int, queries: int, folder: Path) -> None:
    """Make the input, run both flows, and print the table."""
    from flows.benchmark import xmore_benchmark
    from flows.reindex import xmore_reindex
    from xmore.results.runs import load_run
    from xmore.results.views import open_views

    write_models(folder / "models")
    write_images(folder / "images", queries)
    write_memory(folder / "source", rows)
    print(f"{queries:,} queries, {CLASSES:,} classes; {rows:,} rows x {DIM}", flush=True)
    spent: dict[str, Spent] = {}
    with measured_steps(spent):
        with measured(spent.setdefault("the whole re-index", Spent())):
            done = xmore_reindex.fn(memory_config(folder))
        with measured(spent.setdefault("the whole benchmark", Spent())):
            name = xmore_benchmark.fn(benchmark_config(folder))
    run = load_run(folder / "results", name)
    index = done.snapshot.manifest["index"]
    print(f"index: {json.dumps({key: index[key] for key in index if key != 'file'})}")
    show(spent)
    print(open_views(run).sql("select model, method, adjustment, top1, n from leaderboard"))
    print(f"results: {size_of(folder / 'results')}, memory: {size_of(folder / 'memory')}")


@cache
def centres(model: str) -> np.ndarray:
    """Return the features of the classes under a model: (CLASSES, DIM) float32 unit rows."""
    return unit(generator(model, "centres").standard_normal((CLASSES, DIM), np.float32))


@cache
def noises(model: str) -> np.ndarray:
    """Return what features differ by from their class: (NOISES, DIM) float32."""
    random = generator(model, "noise")
    basis = random.standard_normal((INNER, DIM), np.float32)
    return NOISE * unit(random.standard_normal((NOISES, INNER), np.float32) @ basis)


def features(model: str, labels: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return unit features near those of classes: (N,) and (N,) -> (N, DIM) float32."""
    return unit(centres(model)[labels] + noises(model)[seeds % NOISES])


def generator(*of: object) -> np.random.Generator:
    """Return a generator that depends on its arguments alone."""
    return np.random.default_rng(int.from_bytes(sha256(repr(of).encode()).digest()[:8]))


def write_models(folder: Path) -> None:
    """Write a folder for each model: what the config says of it is read, its weights are not."""
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    config = {"model_cfg": {"embed_dim": DIM, "vision_cfg": vision, "text_cfg": text}}
    for number, name in enumerate(MODELS):
        (folder / name).mkdir(parents=True)
        (folder / name / "open_clip_config.json").write_text(json.dumps(config))
        weights = {"weight": np.array([number], np.float32)}
        save_file(weights, folder / name / "open_clip_model.safetensors")


def write_images(folder: Path, queries: int) -> None:
    """Write small JPEGs in a folder for each class, and the dataset's card."""
    for label in range(CLASSES):
        (folder / f"subject {label:04d}").mkdir(parents=True)
    for number in range(queries):
        pixels = generator("image", number).integers(0, 256, (8, 8, 3), np.uint8)
        image = Image.fromarray(pixels).resize((32, 32))
        image.save(folder / f"subject {number % CLASSES:04d}" / f"{number:05d}.jpg")
    folder.with_suffix(".yaml").write_text(f"name: generated\nroot: {folder}\n")


def write_memory(folder: Path, rows: int) -> None:
    """Write a clip-retrieval folder; its captions name their class."""
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    for number, start in enumerate(range(0, rows, SHARD)):
        ids = np.arange(start, min(start + SHARD, rows))
        labels = generator("labels", number).integers(0, CLASSES, len(ids))
        points = features("coarse", labels, ids * 7919)
        points = unit(points + 0.03 * generator("own", number).standard_normal(points.shape))
        np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", points.astype(np.float16))
        captions = [
            f"a picture of something, number {i:09d}, of subject {label:04d}"
            for i, label in zip(ids.tolist(), labels.tolist(), strict=True)
        ]
        table = pa.table({"url": [f"http://a.example/{i}.jpg" for i in ids], "caption": captions})
        path = folder / "metadata" / f"metadata_{number:04d}.parquet"
        pq.write_table(table, path, row_group_size=50_000)


def memory_config(folder: Path) -> ReindexConfig:
    """Return the config of the re-index."""
    return ReindexConfig.model_validate(
        {
            "name": "generated",
            "memory": folder / "memory",
            "sources": [{"clip_retrieval": {"folder": folder / "source"}}],
            "model_name": "coarse",
            "model": {"folder": folder / "models" / "coarse"},
            "index": {"key": "IVF4096,SQ8", "rerank": 2},
            "cache": folder / "cache",
            "shard_rows": 50_000,
        }
    )


def benchmark_config(folder: Path) -> BenchmarkConfig:
    """Return the config of the benchmark."""
    return BenchmarkConfig.model_validate(
        {
            "name": "paper-size",
            "datasets": [folder.joinpath("images.yaml").as_posix()],
            "memory": folder / "memory",
            "results": folder / "results",
            "models": {name: {"folder": folder / "models" / name} for name in MODELS},
            "roles": {"inference": ["one", "other"], "coarse": "coarse", "fine": "fine"},
            "retrieval": {"candidates": 128, "captions": [16], "search": "index"},
            "methods": ["clip", "caption-ensemble", "equal", "xmore"],
            "adjustments": ["minmax"],
            "seeds": [0, 1, 2],
        }
    )


@contextmanager
def measured_steps(spent: dict[str, Spent]) -> Iterator[None]:
    """Generate embeddings in the block, and measure each step."""
    call = Step.__call__

    def watched(step: Step, *args: Any, **kwargs: Any) -> Any:
        with measured(spent.setdefault(step.fn.__name__, Spent())):
            return call(step, *args, **kwargs)

    replaced: list[tuple[Any, str, Any]] = [
        (Step, "__call__", watched),
        (tasks.query_embeddings, "dataset_images", generated_images),
        (TextEncoder, "_encode", generated_texts),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in replaced]
    for place, name, value in replaced:
        setattr(place, name, value)
    yield
    for place, name, value in before:
        setattr(place, name, value)


def generated_images(work: Any, card: Any, model: Any, spans: Sequence[Span] = ()) -> Any:
    """Stand for `dataset_images`: features of images from their names."""

    def begin(spans: Sequence[Span], rows: Callable[[int, int], pa.Table]) -> Iterator[np.ndarray]:
        for start, stop in spans:
            part = rows(start, stop)
            labels = [int(name[8:12]) for name in part["uri"].to_pylist()]
            yield features(model.name, np.array(labels), part["query_id"].to_numpy() * 104_729)

    def stream(spans: Sequence[Span], rows: Any) -> Stream[np.ndarray]:
        return Stream(spans, lambda left: begin(left, rows))

    return SimpleNamespace(features=stream, encoder=SimpleNamespace(logit_scale=100.0))


def generated_texts(encoder: Any, texts: list[str]) -> TextFeatures:
    """Stand for a model: features of texts from the last number that they have."""
    found = pc.extract_regex(pa.array(texts), r"(?P<n>\d{4})\D*$")
    labels = pc.struct_field(found, "n").cast(pa.int64()).to_numpy()
    seeds = np.fromiter(map(hash_of, texts), np.int64, len(texts))
    rows = features(encoder._model.name, labels, seeds)
    return TextFeatures(rows, np.ones(len(rows), np.float32), np.zeros(len(rows), bool))


def hash_of(text: str) -> int:
    """Return a number that depends on a text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:4])


@contextmanager
def measured(spent: Spent) -> Iterator[None]:
    """Add what the block takes."""
    ended, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    read, written = transferred()
    seconds, cpu = time.perf_counter(), cpu_seconds()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        spent.calls += 1
        spent.seconds += time.perf_counter() - seconds
        spent.cpu += cpu_seconds() - cpu
        spent.peak_mb = max(spent.peak_mb, peak[0], anonymous_mb())
        now = transferred()
        spent.read += now[0] - read
        spent.written += now[1] - written


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def anonymous_mb() -> float:
    """Return the resident memory of this process that is no file's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x)
    return int(line.split()[1]) / 1024


def transferred() -> tuple[int, int]:
    """Return the bytes that this process has read and written by calls."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["wchar"])


def show(spent: dict[str, Spent]) -> None:
    """Print a line for each step."""
    print(
        f"{'step':<22}{'calls':>6}{'s':>9}{'CPU s':>9}{'peak MB':>9}{'read MB':>9}{'wrote MB':>9}"
    )
    for name, each in spent.items():
        print(
            f"{name:<22}{each.calls:>6}{each.seconds:>9.1f}{each.cpu:>9.1f}{each.peak_mb:>9,.0f}"
            f"{each.read / 1e6:>9,.0f}{each.written / 1e6:>9,.0f}"
        )


def size_of(folder: Path) -> str:
    """Return the size of a folder's files; those that are linked count once."""
    stats = {(s.st_dev, s.st_ino): s.st_size for s in (p.stat() for p in folder.rglob("*"))}
    return f"{sum(stats.values()) / 1e9:.2f} GB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("queries", nargs="?", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="Keep everything there; it must not exist.")
    asked = parser.parse_args()
    if asked.folder:
        asked.folder.mkdir(parents=True)
        main(asked.rows, asked.queries, asked.folder.resolve())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(asked.rows, asked.queries, Path(scratch))
