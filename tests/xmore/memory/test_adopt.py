"""A clip-retrieval folder, adopted where it lies: read, benchmarked, never written to."""

import hashlib
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.benchmark import xmore_benchmark
from flows.verify import verify_run
from xmore.files.digests import FactCache, digest_text
from xmore.files.errors import SnapshotError
from xmore.memory import adopt as adopting
from xmore.memory.adopt import adopt, open_memory
from xmore.memory.rows import captions_of, keys_of
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows


@pytest.fixture(scope="module")
def foreign(world, tmp_path_factory) -> Path:
    """The tiny world's rows as clip-retrieval would have written them, 20 rows a file."""
    from index_build.index.build import build_index
    from xmore.config.memory import IndexConfig

    ours = open_snapshot(world.root / "memory", resolve_current(world.root / "memory"))
    features = np.concatenate([np.load(shard.embeddings) for shard in ours.shards])
    rows = pa.concat_tables([pq.read_table(shard.metadata) for shard in ours.shards])
    folder = tmp_path_factory.mktemp("foreign")
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir()
    # Their numbers have no leading noughts; files are read in the order of their names.
    for place, number in enumerate(sorted(range(12), key=str)):
        span = slice(20 * place, 20 * (place + 1))
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", features[span])
        captions = rows["caption"].to_pylist()[span]
        urls = [f"http://h/{path}" for path in rows["image_path"].to_pylist()[span]]
        table = pa.table({"image_path": [None] * 20, "caption": captions, "url": urls})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    build_index(folder, IndexConfig(key="Flat"))
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def candidates(config, name):
    run = load_run(config.results, name)
    ref = next(ref for ref in run.artifacts if ref.stage == "candidates")
    return read_rows(ref).to_pylist()


@pytest.mark.parametrize("search", ["exact", "index"])
def test_it_is_benchmarked_in_place_and_read_only(world, done, foreign, tmp_path, search):
    before = content(foreign)
    retrieval = {"candidates": 24, "captions": [8], "search": search}
    config = world.config(tmp_path, memory=foreign, retrieval=retrieval)
    name = xmore_benchmark.fn(config)
    assert content(foreign) == before
    theirs, ours = candidates(config, name), candidates(done.config, done.name)
    for one, other in zip(theirs, ours, strict=True):
        # The index may give the other one of two equal images.
        assert search == "index" or one["memory_ids"] == other["memory_ids"]
        np.testing.assert_allclose(one["similarities"], other["similarities"], atol=1e-5)
        assert one["memory_keys"] != other["memory_keys"]
    run = load_run(config.results, name)
    assert (
        run.snapshot["name"].startswith("adopted-") and not verify_run(run, repair=False).problems
    )


def test_keys_are_of_url_and_caption(foreign, tmp_path):
    snapshot = adopt(foreign, tmp_path)
    ids = np.array([239, 0, 61, 0])
    rows = pa.concat_tables(
        [pq.read_table(path) for path in sorted((foreign / "metadata").glob("*"))]
    ).to_pylist()
    assert captions_of(snapshot, ids).to_pylist() == [rows[i]["caption"] for i in ids]
    expected = [digest_text(f"{rows[i]['url']}\n{rows[i]['caption']}") for i in ids]
    assert keys_of(snapshot, ids).to_pylist() == expected


def test_files_are_paired_by_their_numbers(foreign, tmp_path):
    """Whatever the order of their names, which stays that of the rows."""
    copy = shutil.copytree(foreign, tmp_path / "copy")
    for path in (copy / "metadata").iterdir():
        path.rename(path.with_name(f"metadata_{int(path.stem[9:]):04d}.parquet"))
    one, other = adopt(foreign, tmp_path), adopt(copy, tmp_path)
    ids = np.arange(240)
    assert captions_of(other, ids) == captions_of(one, ids)
    assert keys_of(other, ids) == keys_of(one, ids)
    assert [shard.embeddings.name for shard in other.shards][:3] == [
        "img_emb_0.npy",
        "img_emb_1.npy",
        "img_emb_10.npy",
    ]


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_hashing_goes_on_where_it_ended(foreign, tmp_path, monkeypatch, end):
    """The last two of 25 files are read again. What a kill leaves was saved before it."""
    hashing, read = adopting.digest_file, []

    def hashed(path):
        if len(read) == 23:
            raise KeyboardInterrupt
        read.append(path.name)
        return hashing(path)

    monkeypatch.setattr(adopting, "READERS", 1)
    monkeypatch.setattr(adopting, "digest_file", hashed)
    monkeypatch.setattr("xmore.files.digests.SAVE_EVERY", 0 if end == "killed" else 99)
    monkeypatch.setattr("xmore.files.digests.REST", 0)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as ending:
        if end == "killed":  # nothing runs at the end
            save = FactCache.save
            ending.setattr(
                FactCache, "save", lambda *args: sys.exc_info()[0] is None and save(*args)
            )
        adopt(foreign, tmp_path)
    read.clear()
    again = adopt(foreign, tmp_path)
    assert read == ["metadata_9.parquet", "image.index"]
    monkeypatch.setattr(adopting, "digest_file", hashing)
    assert again.digest == adopt(foreign, tmp_path / "other").digest


def test_files_are_hashed_side_by_side(foreign, tmp_path, monkeypatch):
    """Each waits until four are at work."""
    both, hashing = threading.Barrier(4, timeout=60), adopting.digest_file
    monkeypatch.setattr(adopting, "READERS", 4)
    monkeypatch.setattr(adopting, "digest_file", lambda path: (both.wait(), hashing(path))[1])
    copy = shutil.copytree(foreign, tmp_path / "copy", ignore=lambda *_: ["image.index"])
    assert len(adopt(copy, tmp_path).manifest["files"]) == 24


def test_a_run_is_not_resumed_on_other_bytes(foreign, tmp_path):
    copy = shutil.copytree(foreign, tmp_path / "copy")
    with open_memory(copy, tmp_path / "cache") as snapshot:
        name = snapshot.name
    rows = np.load(copy / "img_emb" / "img_emb_3.npy")
    np.save(copy / "img_emb" / "img_emb_3.npy", rows[::-1].copy())
    with (
        pytest.raises(SnapshotError, match="have changed since"),
        open_memory(copy, tmp_path / "cache", name),
    ):
        pass


def test_a_snapshot_that_gc_deleted_is_said_to_be_gone(tmp_path):
    memory = tmp_path / "memory"
    (memory / "snapshots").mkdir(parents=True)
    with (
        pytest.raises(SnapshotError, match="snapshot old is gone, as gc deletes old ones"),
        open_memory(memory, tmp_path / "cache", "old"),
    ):
        pass
    assert [path.name for path in memory.iterdir()] == ["snapshots"]


def _rename(folder: Path) -> None:
    path = folder / "metadata" / "metadata_0.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["image_path", "words", "url"]), path)


def _save(folder: Path, rows: np.ndarray) -> None:
    np.save(folder / "img_emb" / "img_emb_0.npy", rows)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "metadata" / "metadata_3.parquet").unlink(), "12 files in img_emb but 11"),
        (lambda f: _save(f, np.ones((20, 64), np.float16)), "row 0 is not a unit vector"),
        (lambda f: _save(f, np.eye(19, 1280, dtype=np.float16)), "has 19 rows but"),
        (lambda f: _save(f, np.eye(20, 30, dtype=np.float16)), "expected 30 dimensions"),
        (lambda f: (f / "img_emb" / "img_emb_0.npy").write_bytes(b"?"), "not a readable array"),
        (_rename, "caption, TEXT, text"),
        (lambda f: shutil.rmtree(f / "img_emb"), "CURRENT"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_named(foreign, tmp_path, damage, says):
    copy = shutil.copytree(foreign, tmp_path / "copy")
    damage(copy)
    with (
        pytest.raises(SnapshotError, match=says) as caught,
        open_memory(copy, tmp_path / "cache"),
    ):
        pass
    assert str(copy) in str(caught.value)


def test_another_models_dimensions_are_refused(world, foreign, tmp_path):
    roles = {"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"}
    with pytest.raises(SnapshotError, match=r"64 dimensions.*lite0. have 384"):
        xmore_benchmark.fn(world.config(tmp_path, memory=foreign, roles=roles))
