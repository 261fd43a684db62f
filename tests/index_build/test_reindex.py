"""A memory from the web: real HTTP, img2dataset in its process, a real index, real snapshots."""

import json
import shutil
import tarfile
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from flows.reindex import summary, xmore_reindex
from index_build import snapshot as publishing
from index_build.base import history
from index_build.base.features import describe, part, read_record, write_record
from index_build.index.tune import IMAGES
from index_build.verify import check_rows, verify_snapshot
from xmore.config.memory import ReindexConfig
from xmore.files.digests import digest_file, digest_text
from xmore.files.errors import LockedError, SnapshotError
from xmore.files.locks import locked
from xmore.memory.snapshot import open_snapshot, resolve_current

BAD = {
    "images/gone.jpg": "HTTP 404",
    "bad/page.jpg": "not an image",
    "bad/truncated.jpg": "truncated or damaged",
    "bad/bomb.png": "too many pixels",
    "no-ai": "forbidden by the server's X-Robots-Tag",
    "drip/body": "timeout",
}


@pytest.fixture(scope="module")
def made(world, web_server, cold_downloads, tmp_path_factory):
    """A re-index of 120 images and some bad rows; no test may change it."""
    folder = tmp_path_factory.mktemp("made")
    extra = [(web_server.url(path), f"bad: {path}") for path in BAD]
    extra += [(web_server.url("images/x.jpg"), " "), ("file:///etc/hostname", "mine")]
    urls = web_server.url_list(folder / "urls.parquet", extra, rows=120)
    download = {"timeout": 2, "threads": 8, "processes": 2, "retries": 1, "tries": 1}
    config = world.url_config(urls, folder / "memory", download=download, model_name="m")
    web_server.asked.clear()
    with cold_downloads():
        return config, xmore_reindex.fn(config), Counter(web_server.asked)


def rows_of(snapshot) -> list[dict]:
    return [row for s in snapshot.shards for row in pq.read_table(s.metadata).to_pylist()]


def features_of(snapshot) -> np.ndarray:
    return np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])


def test_failures_are_counted_by_cause_and_all_rows_are_accounted_for(made):
    _, result, _ = made
    facts = result.snapshot.manifest
    expected = Counter(BAD.values()) + Counter({"empty caption": 1, "not a usable URL": 1})
    assert Counter(facts["failures"]) == expected
    assert facts["asked"] == facts["rows"] + expected.total() == 128
    assert (result.fetched, result.embedded, result.skipped) == (127, 120, False)


def test_only_what_may_pass_is_asked_for_again(made):
    _, _, asked = made
    assert asked["/drip/body"] == 2 and asked["/bad/bomb.png"] == asked["/images/gone.jpg"] == 1


def test_rows_are_bound_to_their_images(made, world):
    _, result, _ = made
    rows, features = rows_of(result.snapshot), features_of(result.snapshot)
    images = world.images
    assert len(rows) == len(features) == 120
    for row in rows:
        name = row["url"].rpartition("/")[2]
        assert row["memory_key"] == digest_file(images / name)
        assert row["row_key"] == digest_text(f"{row['url']}\n{row['caption']}")
        assert row["width"] >= 16 and row["LICENSE"] == "?"
    assert [row["row_key"] for row in rows] == sorted(row["row_key"] for row in rows)


def test_the_features_are_those_of_the_images(made, world):
    from xmore.images.readers import Files, ListedImages
    from xmore.models.features import encode_images
    from xmore.models.loaded import load_encoder
    from xmore.models.spec import describe_model

    config, result, _ = made
    rows, features = rows_of(result.snapshot), features_of(result.snapshot)
    folder = world.images
    names = [row["url"].rpartition("/")[2] for row in rows]
    source = ListedImages(Files(folder), names, [row["memory_key"] for row in rows])
    encoder = load_encoder(describe_model("m", config.model, world.root / "cache"), "cpu")
    direct = encode_images(source, encoder, batch_size=64)
    assert direct.kept == list(range(len(rows)))
    # Some were scaled down to 256 pixels and encoded again on the way.
    assert (features * direct.unit).sum(1).min() > 0.93
    assert np.median((features * direct.unit).sum(1)) > 0.999


def test_the_index_and_its_recall_are_in_the_manifest(made):
    _, result, _ = made
    facts = result.snapshot.manifest
    index = facts["index"]
    assert index["key"] == "Flat" and index["bytes"] == result.snapshot.index_path.stat().st_size
    assert list(index["measured"]["of"]) == [IMAGES]  # the model has no texts
    assert index["measured"]["of"][IMAGES]["recall"] == {"1": 1, "16": 1, "128": 1}
    assert index["measured"]["ms_per_query"] > 0
    assert not check_rows(result.snapshot) and not verify_snapshot(result.snapshot)


def test_webdataset_reads_the_downloaded_shards(made):
    config, result, _ = made
    tars = sorted(config.memory.glob("batches/*/images/*.tar"))
    samples = [s for tar in tars for s in webdataset.WebDataset(str(tar), shardshuffle=False)]
    texts = {sample["txt"].decode() for sample in samples}
    assert texts == {row["caption"] for row in rows_of(result.snapshot)}
    assert all(sample["jpg"][:2] == b"\xff\xd8" for sample in samples)


def test_an_unchanged_second_run_asks_nothing_of_anyone(made, web, monkeypatch):
    config, result, _ = made
    monkeypatch.setattr("index_build.download.images._run", lambda *_: pytest.fail("downloaded"))
    again = xmore_reindex.fn(config)
    assert again.skipped and again.snapshot.name == result.snapshot.name and not web.asked


@pytest.fixture(scope="module")
def stopped(made, web_server, tmp_path_factory):
    """The same re-index, stopped when all was downloaded and nothing embedded."""
    config, _, _ = made
    config = config.model_copy(update={"memory": tmp_path_factory.mktemp("stopped") / "memory"})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("tasks.reindex.check", lambda *_: 1 / 0)
        xmore_reindex.fn(config)
    return config


@pytest.fixture
def copy(made, stopped, tmp_path):
    """A copy of the stopped memory to go on with, and what it should come to."""
    shutil.copytree(stopped.memory, tmp_path / "memory")
    return stopped.model_copy(update={"memory": tmp_path / "memory"}), made[1]


def same(one, other) -> bool:
    return rows_of(one) == rows_of(other) and (features_of(one) == features_of(other)).all()


def test_a_stopped_run_goes_on_with_what_it_has(copy, web):
    config, result = copy
    again = xmore_reindex.fn(config)
    assert (again.fetched, again.embedded) == (0, 120) and not web.asked
    assert same(again.snapshot, result.snapshot)


def test_another_model_embeds_the_downloads_anew(made, world, tmp_path, web):
    config, result, _ = made
    shutil.copytree(config.memory, tmp_path / "memory")
    model = {"folder": world.root / "models" / "lite0"}
    other = ReindexConfig.model_validate(
        config.model_dump() | {"memory": tmp_path / "memory", "model": model}
    )
    again = xmore_reindex.fn(other)
    assert (again.fetched, again.embedded) == (0, 120) and not web.asked
    assert again.snapshot.dim == 384 and rows_of(again.snapshot) == rows_of(result.snapshot)


@pytest.mark.parametrize("damage", ["tar", "parquet", "gone"])
def test_a_torn_shard_is_fetched_again_and_only_that(copy, web, damage):
    config, result = copy
    folder = next(config.memory.glob("batches/*/images/00001.tar")).parent
    if damage == "tar":
        data = (folder / "00001.tar").read_bytes()
        (folder / "00001.tar").write_bytes(data[: len(data) // 2])
    elif damage == "parquet":
        (folder / "00001.parquet").write_bytes(b"PAR1")
    else:
        (folder / "00001_stats.json").unlink()
    again = xmore_reindex.fn(config)
    assert 0 < web.asked.total() <= 62  # of 126; what may pass is asked for twice
    assert same(again.snapshot, result.snapshot)


def test_too_many_failures_publish_nothing_and_an_outage_is_not_remembered(world, web, tmp_path):
    urls = web.url_list(tmp_path / "urls.parquet", rows=20)
    config = world.url_config(urls, tmp_path / "memory")
    web.outage = True
    with pytest.raises(SnapshotError, match=r"20 of 20 rows failed \(20 HTTP 503\).*50%") as caught:
        xmore_reindex.fn(config)
    assert "\n" not in str(caught.value) and "max_rejected" in str(caught.value)
    assert not (tmp_path / "memory" / "CURRENT").exists()
    assert not (tmp_path / "memory" / "snapshots").exists()
    web.outage = False
    assert xmore_reindex.fn(config).snapshot.rows == 20


def test_a_changed_list_makes_a_snapshot_beside_the_old_one(world, web, tmp_path):
    config = world.url_config(web.url_list(tmp_path / "urls.parquet", rows=20), tmp_path / "m")
    first = xmore_reindex.fn(config).snapshot
    web.url_list(tmp_path / "urls.parquet", rows=30)
    second = xmore_reindex.fn(config).snapshot
    assert (first.rows, second.rows) == (20, 30) and resolve_current(config.memory) == second.name
    assert not verify_snapshot(open_snapshot(config.memory, first.name))


def test_another_reindex_of_the_same_memory_is_refused_in_one_line(made):
    config, _, _ = made
    lock = config.memory / ".locks" / "reindex.lock"
    with locked(lock), pytest.raises(LockedError, match="another re-index of this") as caught:
        xmore_reindex.fn(config)
    assert "\n" not in str(caught.value)


def test_a_stop_between_publishing_and_current_is_mended(copy, monkeypatch, web):
    config, _ = copy
    monkeypatch.setattr("flows.reindex.point_current", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        xmore_reindex.fn(config)
    assert not (config.memory / "CURRENT").exists()
    monkeypatch.undo()
    again = xmore_reindex.fn(config)
    assert again.skipped and resolve_current(config.memory) == again.snapshot.name


def test_a_stop_between_publishing_and_the_history_is_mended(copy, monkeypatch):
    config, _ = copy
    monkeypatch.setattr("index_build.base.history.append", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        xmore_reindex.fn(config)
    assert history.read(config.memory) == []
    monkeypatch.undo()
    snapshot = xmore_reindex.fn(config).snapshot
    (event,) = history.read(config.memory)
    facts = {"event": "published", "snapshot": snapshot.name, "rows": snapshot.rows}
    assert event.items() >= (facts | {"added": snapshot.rows, "removed": 0}).items()


def test_a_faulty_snapshot_is_not_published(copy, monkeypatch):
    config, _ = copy
    monkeypatch.setattr(publishing, "publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        xmore_reindex.fn(config)
    monkeypatch.undo()
    path = next(config.memory.glob("batches/*/features-*/img_emb/img_emb_00001.npy"))
    rows = np.load(path)
    rows[3] = np.nan
    np.save(path, rows)
    folder = path.parents[1]  # recorded so: else it would be embedded again
    record = read_record(folder, 1)
    files = {kind: part(folder, kind, 1) for kind in record["files"]}
    write_record(folder, 1, record | {"files": describe(files)})
    with pytest.raises(SnapshotError, match="not a unit vector"):
        xmore_reindex.fn(config)
    assert not (config.memory / "CURRENT").exists()


def test_a_foreign_member_of_a_tar_is_never_unpacked_or_read(copy, web):
    config, result = copy
    tar = next(config.memory.glob("batches/*/images/00000.tar"))
    with tarfile.open(tar, "a") as archive:
        for name in ("../../evil.jpg", "/xmore-evil.jpg"):
            member = tarfile.TarInfo(name)
            archive.addfile(member)
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    again = xmore_reindex.fn(config)  # not as it was downloaded: fetched again
    assert 0 < web.asked.total() <= 62 and same(again.snapshot, result.snapshot)
    assert not list(config.memory.rglob("*evil*"))


def test_the_manifest_is_small_and_plain(made):
    _, result, _ = made
    text = (result.snapshot.path / "manifest.json").read_text()
    assert len(text) < 10_000 and json.loads(text)["plan"]


def test_rows_that_fail_again_change_nothing_and_load_no_model(world, web, tmp_path, monkeypatch):
    nobody = ("http://127.0.0.1:9/a.jpg", "nobody answers")
    urls = web.url_list(tmp_path / "urls.parquet", [nobody], rows=20)
    config = world.url_config(urls, tmp_path / "memory")
    first = xmore_reindex.fn(config)
    monkeypatch.setattr("tasks.reindex.load_encoder", lambda *_, **__: pytest.fail("loaded"))
    again = xmore_reindex.fn(config)
    assert (again.fetched, again.embedded, again.skipped) == (1, 0, False)
    assert again.snapshot.name == first.snapshot.name
    assert [e["event"] for e in history.read(config.memory)] == ["published", "checked"]
    assert "unchanged: 1 rows requested, nothing new" in summary(again)[0]
