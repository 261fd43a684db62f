"""The cost of a memory's year: 20,000 rows over HTTP, then 10 % more, 5 % fewer, three taken down.

    python benchmarks/freshness.py [--rows 20000]

Images are variants (cropped, mirrored, dimmed) of the demo's, served from this machine. The model
is the demo's pooled one. It prints the rows that each run requested and embedded, its seconds by
step, and whether the snapshot is intact; then a rollback, and what gc leaves of rows taken down.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance, ImageOps

from flows.reindex import Reindexed, xmore_reindex
from flows.upkeep import check, roll_back
from index_build.base import history
from index_build.upkeep.gc import collect
from xmore.config.memory import ReindexConfig
from xmore.files.paths import PROJECT_ROOT
from xmore.models.conse import build_model

DEMO = PROJECT_ROOT / "data" / "demo" / "memory"


class Web(ThreadingHTTPServer):
    """Serves the variants and counts the requests by path."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path) -> None:
        self.requests: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests[self.path] += 1  # type: ignore[attr-defined]
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def make_variants(folder: Path, count: int) -> list[tuple[str, str]]:
    """Write `count` images under `folder` -> (name, caption) of each; all bytes differ."""
    rng = np.random.default_rng(0)
    pairs = pq.read_table(DEMO / "captions.parquet").to_pylist()
    written = []
    for number in range(count):
        pair = pairs[number % len(pairs)]
        image = Image.open(DEMO / "images" / pair["path"]).convert("RGB")
        left, top = rng.uniform(0, 0.15, 2) * image.size
        image = image.crop((int(left), int(top), *image.size))
        image = ImageOps.mirror(image) if rng.random() < 0.5 else image
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
        image.save(folder / f"{number:06d}.jpg", quality=int(rng.integers(70, 95)))
        written.append((f"{number:06d}.jpg", f"{pair['caption']}, variant {number:06d}"))
    return written


def main() -> None:
    """Run the year and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    model = PROJECT_ROOT / "data" / "models" / "lite0"
    if not model.is_dir():
        build_model("lite0", model)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "web").mkdir()
        pairs = make_variants(work / "web", rows + rows // 10)
        web = Web(work / "web")
        threading.Thread(target=web.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{web.server_port}/{name}" for name, _ in pairs]
        table = pa.table({"url": urls, "caption": [caption for _, caption in pairs]})
        source = {"path": str(work / "urls.parquet"), "columns": {}}
        config = ReindexConfig.model_validate(
            {
                "memory": work / "memory",
                "sources": [{"urls": source}],
                "model": {"folder": model, "pooled": True},
                "download": {"allow_private": True},
                "shard_rows": 1000,
                "cache": work / "cache",
            }
        )
        print(f"{'run':<14}{'requests':>9}{'embedded':>9}{'rows':>8}{'added':>7}", end="")
        print(f"{'removed':>8}{'download':>10}{'embed':>8}{'index':>14}{'total':>8}  intact")
        run(config, web, "first", table.slice(0, rows))
        more = run(config, web, "10 % more", table)
        gone = rows // 20
        fewer = run(config, web, "5 % fewer", table.slice(gone))
        taken = [pairs[gone + 3], pairs[gone + rows // 2], pairs[-1]]
        takedown = work / "take-down.txt"
        takedown.write_text("".join(f"{urls[int(name[:6])]}\n" for name, _ in taken))
        down = config.model_copy(update={"take_down": takedown})
        last = run(down, web, "3 taken down", table.slice(gone))
        old, new = roll_back(config.memory, None)
        print(f"rolled back: {(old, new) == (last.snapshot.name, fewer.snapshot.name)}")
        roll_back(config.memory, old)
        needles = [caption.encode() for _, caption in taken]
        needles += [(work / "web" / name).read_bytes()[-400:-100] for name, _ in taken]
        before = found_in(config.memory, needles)
        begun = time.perf_counter()
        freed = collect(config.memory, keep=1, dry_run=False)
        print(
            f"gc: {time.perf_counter() - begun:.1f} s, {freed.bytes / 1e6:.0f} MB and "
            f"the images of {freed.rows:,} rows freed; files with bytes of rows taken down: "
            f"{before} before, {found_in(config.memory, needles)} after; "
            f"still intact: {not check(last.snapshot)}"
        )
        assert more.added == rows // 10


def run(config: ReindexConfig, web: Web, name: str, table: pa.Table) -> Reindexed:
    """Re-index the list, and print a line about it."""
    pq.write_table(table, config.sources[0].urls.path)  # type: ignore[union-attr]
    web.requests.clear()
    begun = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars would break the table
        result = xmore_reindex.fn(config)
    spent = time.perf_counter() - begun
    event = history.read(config.memory)[-1]
    seconds = event["seconds"]
    print(
        f"{name:<14}{web.requests.total():>9,}{result.embedded:>9,}{result.snapshot.rows:>8,}"
        f"{result.added:>7,}{result.removed:>8,}{seconds['download']:>10.1f}"
        f"{seconds['embed']:>8.1f}"
        f"{event['index'] + ' ' + format(seconds['index'], '.1f'):>14}{spent:>8.1f}"
        f"  {not check(result.snapshot)}",
        flush=True,
    )
    return result


def found_in(folder: Path, needles: list[bytes]) -> int:
    """Return the number of files that contain one of the needles."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(any(needle in data for needle in needles) for data in map(Path.read_bytes, files))


if __name__ == "__main__":
    main()
