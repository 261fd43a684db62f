"""A flipped bit, anywhere: both verify commands see it, and no run gives other numbers for it."""

import json
import os
import random
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.benchmark import xmore_benchmark
from flows.cli.terminal.upkeep import show_verified
from flows.reindex import xmore_reindex
from flows.verify import verify_run
from flows.verify_memory import verify_memory
from index_build.sources.tars import list_tars, listings
from index_build.upkeep.gc import collect
from xmore.config.sources import TarsConfig
from xmore.files.errors import XmoreError
from xmore.memory.adopt import open_memory
from xmore.memory.rows import captions_of
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.results.runs import load_run
from xmore.results.views import open_views

MANY = int(os.environ.get("XMORE_KILLS", 1)) > 1  # `make test-slow`
FLIPS = 20 if MANY else 1  # in each kind of file

RESULTS = {
    "parts": "store/[!c]*/*/*/part-*.parquet",
    "the text store": "store/caption_embeddings/*/*/*",
    "manifests": "store/*/*/*/manifest.json",
    "runs": "runs/*/run.json",
    "views": "runs/*/views.sql",
    "caches": "cache/*",
}
MEMORY = {
    "embeddings": "snapshots/*/img_emb/*.npy",
    "metadata": "snapshots/*/metadata/*.parquet",
    "keys and captions": "snapshots/*/pairs.arrow",
    "indices": "snapshots/*/image.index",
    "manifests": "snapshots/*/manifest.json",
    "features": "batches/*/features-*/*_emb/*.npy",
    "rows of features": "batches/*/features-*/metadata/*.parquet",
    "records": "batches/*/features-*/done/*.json",
    "tars": "batches/*/images/*.tar",
    "outcomes": "batches/*/outcomes/*",
    "batches": "batches/*/batch.json",
    "history": "history.jsonl",
    "take-downs": "take-downs.jsonl",
    "lists": "making/wanted-*/*",
    "CURRENT": "CURRENT",
}
NEXT = range(20 if MANY else 1)
READ = list(MEMORY) if MANY else ["features", "outcomes", "indices", "history", "lists"]


def flipped(folder: Path, pattern: str, n: int) -> tuple[Path, bytes]:
    """Flip a bit of a file; returns the file and its content before."""
    chosen = random.Random(f"{pattern} {n}")
    files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    path = chosen.choice([path for path in files if path.stat().st_size])  # no lock
    whole = path.read_bytes()
    data = bytearray(whole)
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.unlink()  # a hard link may be another file's
    path.write_bytes(data)
    return path, whole


def linked(folder: Path, target: Path) -> Path:
    """A copy of a folder, by hard links: nothing is edited in place."""
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(folder, target, copy_function=os.link, symlinks=True)


@pytest.fixture(scope="module")
def results(done, world, tmp_path_factory) -> Path:
    """A run's results, with a cached list of a tar."""
    folder = tmp_path_factory.mktemp("verified") / "results"
    shutil.copytree(done.config.results, folder)
    tars = folder.with_name("tars")
    tars.mkdir()
    (tars / "a.txt").write_text("a caption")
    with tarfile.open(tars / "0.tar", "w") as tar:
        tar.add(min((world.root / "queries").rglob("*.jpg")), "a.jpg")
        tar.add(tars / "a.txt", "a.txt")
    memory = open_snapshot(world.root / "memory", resolve_current(world.root / "memory"))
    adopted = replace(memory, manifest=memory.manifest | {"files": []}, cache=folder / "cache")
    captions_of(adopted, np.array([0]))  # made once, in the cache
    list(listings(list_tars(tars), TarsConfig(folder=tars), folder / "cache", 1 << 20))
    return folder


@pytest.fixture(scope="module")
def indexed(world, web_server, tmp_path_factory):
    """The config of a memory with two snapshots; a row of the first was taken down."""
    folder = tmp_path_factory.mktemp("verified")
    urls = web_server.url_list(folder / "urls.parquet", rows=30)
    config = world.url_config(urls, folder / "memory", shard_rows=12, cache=folder / "cache")
    xmore_reindex.fn(config)
    (folder / "down.txt").write_text(pq.read_table(urls)["URL"][7].as_py() + "\n")
    config = config.model_copy(update={"take_down": folder / "down.txt"})
    xmore_reindex.fn(config)
    return config


@pytest.fixture(scope="module")
def memory(indexed) -> Path:
    return indexed.memory


def test_what_is_whole_is_intact(results, memory, xmore):
    answer = xmore("verify", "--all", "--results", results)
    assert answer.returncode == 0 and ": intact (" in answer.stdout, answer
    answer = xmore("memory", "verify", memory, "--all")
    assert answer.returncode == 0 and ": intact (" in answer.stdout and "read)" in answer.stdout
    assert "read)" in xmore("memory", "verify", memory).stdout
    assert xmore("verify").returncode == xmore("verify", "latest", "--all").returncode == 2
    assert xmore("memory", "verify", memory, "--repair").returncode == 2


def test_a_run_whose_snapshot_gc_deleted_is_intact(results, done, tmp_path, capsys):
    run = load_run(results, done.name)
    (tmp_path / "snapshots").mkdir()
    run.snapshot = {"name": "old", "memory": str(tmp_path)}
    found = verify_run(run, repair=False)
    assert found.problems == [] and "snapshot old is gone" in found.absent[0]
    assert not show_verified(found, run.name, repair=False)
    assert capsys.readouterr().out.startswith("not read: ")


@pytest.mark.parametrize("n", range(FLIPS))
@pytest.mark.parametrize("kind", RESULTS)
def test_a_flip_in_results_is_seen(results, xmore, kind, n):
    path, whole = flipped(results, RESULTS[kind], n)
    answer = xmore("verify", "--all", "--results", results)
    path.write_bytes(whole)
    assert answer.returncode == 1 and path.name in answer.stdout, answer


@pytest.mark.parametrize("n", range(FLIPS))
@pytest.mark.parametrize("kind", MEMORY)
def test_a_flip_in_a_memory_is_seen(memory, xmore, kind, n):
    path, whole = flipped(memory, MEMORY[kind], n)
    answer = xmore("memory", "verify", memory, "--all")
    path.write_bytes(whole)
    assert answer.returncode == 1 and path.name in answer.stdout, answer


def test_a_repair_that_leaves_nothing_damaged_is_a_success(results, done, xmore, tmp_path):
    copy = linked(results, tmp_path / "results")
    for kind in ("views", "caches"):
        flipped(copy, RESULTS[kind], 0)
    answer = xmore("verify", "--all", "--repair", "--results", copy)
    assert answer.returncode == 0 and f"{copy}: whole again (" in answer.stdout, answer
    assert ": intact (" in xmore("verify", "--all", "--results", copy).stdout
    path = copy / "runs" / done.name / "run.json"
    path.unlink()
    path.write_text("{}")
    answer = xmore("verify", "--all", "--repair", "--results", copy)
    assert answer.returncode == 1 and "No repair ends this; each line says" in answer.stdout, answer
    assert f"delete {path.parent} and run its benchmark again" in answer.stdout


def numbers(config, name: str) -> list[tuple]:
    """What a run says of each query, but for the last bits."""
    query = (
        "select dataset, query_id, method, adjustment, model, m, seed, prediction, "
        "round(probability, 4) as probability from predictions order by all"
    )
    return open_views(load_run(config.results, name)).execute(query).fetchall()


@pytest.mark.parametrize("n", NEXT)
@pytest.mark.parametrize("kind", RESULTS)
def test_the_next_run_says_the_same(done, results, xmore, tmp_path, kind, n):
    config = done.config.model_copy(update={"results": linked(results, tmp_path / "results")})
    flipped(config.results, RESULTS[kind], n)
    try:
        name = xmore_benchmark.fn(config)
        assert numbers(config, name) == numbers(done.config, done.name)
    except XmoreError as error:
        assert "\n" not in str(error)
    if kind == "runs" and n % 10 != 7:
        return  # finding the bit takes seconds
    # Repaired, it is intact, and says the same.
    assert xmore("verify", "--all", "--repair", "--results", config.results).returncode in (0, 1)
    again = xmore_benchmark.fn(config)
    assert numbers(config, again) == numbers(done.config, done.name)
    assert xmore("verify", "--all", "--results", config.results).returncode == 0


def rows_of(memory: Path, cache: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Caption and embedding of each row of the current snapshot, by row_key."""
    found = {}
    with open_memory(memory, cache) as snapshot:
        for shard in snapshot.shards:
            table = pq.read_table(shard.metadata, columns=["row_key", "caption"])
            rows = zip(*table.to_pydict().values(), np.load(shard.embeddings), strict=True)
            found |= {key: (caption, row) for key, caption, row in rows}
    return found


def same_rows(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        caption == other[key][0] and np.allclose(row, other[key][1], atol=1e-3)
        for key, (caption, row) in one.items()
    )


@pytest.fixture(scope="module")
def changed(indexed, tmp_path_factory):
    """Configs that make another snapshot of the same rows, and these rows."""
    root = tmp_path_factory.mktemp("changed")
    index = indexed.index.model_copy(update={"target_recall": 0.9})
    model = indexed.model.model_copy(update={"pooled": False})
    made = []
    for change in ({"index": index}, {"model": model, "model_name": "lite0"}):
        memory = linked(indexed.memory, root / "memory")
        config = indexed.model_copy(update=change | {"memory": memory})
        xmore_reindex.fn(config)
        made.append((config, rows_of(memory, root / "cache")))
    return made


@pytest.mark.parametrize("n", NEXT)
@pytest.mark.parametrize("kind", READ)
def test_the_next_reindex_makes_the_same_rows(indexed, changed, web, xmore, tmp_path, kind, n):
    config, expected = changed[kind in ("tars", "outcomes")]  # another model reads the tars
    memory = linked(indexed.memory, tmp_path / "memory")
    config = config.model_copy(update={"memory": memory, "cache": tmp_path / "cache"})
    flipped(memory, MEMORY[kind], n)

    def run() -> bool:
        try:
            xmore_reindex.fn(config)
            assert same_rows(rows_of(memory, tmp_path / "cache"), expected)
        except XmoreError as error:
            assert "\n" not in str(error)
            return False
        return True

    ran = run()
    assert xmore("memory", "verify", memory, "--all", "--repair").returncode in (0, 1)
    assert run(), "not repaired"
    collect(memory, keep=1, dry_run=False)
    left = xmore("memory", "verify", memory, "--all")
    assert left.returncode == 0, (ran, left)
    assert not list((memory / "batches").rglob("*.broken-*"))


@pytest.mark.parametrize("n", NEXT)
@pytest.mark.parametrize("kind", ["metadata", "features", "rows of features", "tars", "outcomes"])
def test_gc_builds_on_no_damage(indexed, tmp_path, kind, n):
    memory = linked(indexed.memory, tmp_path / "memory")
    path, _ = flipped(memory, MEMORY[kind], n)
    try:
        collect(memory, keep=1, dry_run=False)
    except XmoreError as error:
        assert "\n" not in str(error)
    assert not path.exists() or any(path.name in told for told in verify_memory(memory).problems)


def without_checksums(folder: Path) -> None:
    """Rewrite what older versions wrote without checksums, as they did."""
    for pattern in ("*.json", "*.jsonl"):
        for path in folder.rglob(pattern):
            if path.parent.name == "outcomes":
                path.unlink()
                continue
            text = path.read_text()
            lines = text.split("\n")[1:] if path.parent.name == "cache" else [text]
            lines = text.splitlines() if pattern == "*.jsonl" else lines
            data = [json.loads(line) for line in lines]
            for each in data:
                each.pop("checksum", None)
                if path.name == "selection.json":
                    each.pop("sums")
            path.unlink()
            path.write_text("".join(json.dumps(each) + "\n" for each in data))
    for path in folder.glob("runs/*/views.sql"):
        path.write_text(path.read_text().partition("\n")[2])
    for path in folder.glob("cache/shard-*.parquet"):
        path.rename(path.with_name(f"{path.stem.rpartition('-')[0]}.parquet"))


def test_what_older_versions_made_is_intact_and_unchanged(indexed, results, done, xmore, tmp_path):
    config = indexed.model_copy(update={"memory": linked(indexed.memory, tmp_path / "memory")})
    without_checksums(config.memory)
    answer = xmore("memory", "verify", config.memory, "--all")
    assert answer.returncode == 0, answer
    assert xmore_reindex.fn(config).skipped
    config = config.model_copy(
        update={"index": config.index.model_copy(update={"target_recall": 0.9})}
    )
    assert xmore_reindex.fn(config).embedded == 0
    config = done.config.model_copy(update={"results": linked(results, tmp_path / "results")})
    without_checksums(config.results)
    answer = xmore("verify", "--all", "--results", config.results)
    assert answer.returncode == 0, answer
    run = load_run(config.results, xmore_benchmark.fn(config, again=True))
    assert all(ref.skipped for ref in run.artifacts)


def test_a_damaged_cache_of_a_tar_is_read_again(results, tmp_path, monkeypatch):
    tars, cache = results.with_name("tars"), tmp_path / "cache"
    shutil.copytree(results / "cache", cache)
    source, content = TarsConfig(folder=tars), list_tars(tars)
    monkeypatch.setattr("index_build.sources.tars._read", lambda *_: pytest.fail("read again"))
    ((_, whole),) = listings(content, source, cache, 1 << 20)
    monkeypatch.undo()
    for n in range(FLIPS):
        path, before = flipped(cache, "shard-*.parquet", n)
        ((_, listed),) = listings(content, source, cache, 1 << 20)
        assert listed.equals(whole) and path.read_bytes() == before
