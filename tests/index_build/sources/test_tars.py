"""The listing of tars: what it keeps, and what it must stay the same for."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_build.sources import tars
from index_build.sources.look_up import Listed, want
from xmore.config.memory import ReindexConfig
from xmore.config.sources import SourceConfig, TarsConfig
from xmore.files.digests import digest_of
from xmore.files.errors import DatasetError
from xmore.images.webdataset import Shard, read_at

MEMBERS = [("0.jpg", b"zero"), ("0.txt", b"a cat"), ("1.jpg", b""), ("2.png", b"two"),
           ("2.json", b'{"caption": "a dog"}')]  # fmt: skip


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def content(path: Path, cache: Path, **keys: object) -> list[tuple[Path, pa.Table]]:
    source = TarsConfig(folder=path.parent, **keys)
    return list(tars.listings([path], source, cache, 1000))


def test_the_digest_of_a_whole_tar_is_of_its_rows_alone(tmp_path):
    path = write(tmp_path / "0.tar", MEMBERS)
    offsets = {"0.jpg": 512, "1.jpg": 2560, "2.png": 3072}
    assert {m.name: m.offset for m in Shard(path, {"jpg", "png"})} == offsets
    rows = {
        "member": ["0.jpg", "1.jpg", "2.png"],
        "caption": ["a cat", "", "a dog"],
        "memory_key": [hashlib.sha256(data).hexdigest() for data in (b"zero", b"", b"two")],
        "offset": list(offsets.values()),
        "bytes": [4, 0, 3],
    }
    found = tars.digest_listings(iter(content(path, tmp_path / "cache")), tmp_path)
    assert found == [["0.tar", digest_of(rows)]]


def test_a_failure_changes_the_digest(tmp_path):
    digests = set()
    for more in ([], [("3.jpg", b"three")], [("2.jpg", b"other")]):
        path = write(tmp_path / "0.tar", MEMBERS + more)
        listed = iter(content(path, tmp_path / "cache"))
        digests.add(tars.digest_listings(listed, tmp_path)[0][1])
    assert len(digests) == 3


def test_a_mask_is_counted_but_not_as_a_failure(tmp_path):
    found = []
    for more in ([], [("0.seg.png", b"mask"), ("0.seg.npy", b"mask")]):
        path = write(tmp_path / "0.tar", MEMBERS + more)
        found += tars.digest_listings(iter(content(path, tmp_path / "cache")), tmp_path)
    assert found[0] == found[1]
    listed = tars.list_tars(tmp_path)
    config = ReindexConfig(
        memory=tmp_path / "memory", sources=[{"tars": {"folder": tmp_path}}], model={"folder": "x"},
        cache=tmp_path / "cache",
    )  # fmt: skip
    wanted = want(Listed(config.sources[0], "0" * 64, listed, str(tmp_path)), config)
    assert (wanted.asked, wanted.failures, wanted.filtered) == (
        3, {"empty file": 1}, {"another extension": 1},
    )  # fmt: skip


def test_an_unchanged_tar_is_read_once(tmp_path, monkeypatch):
    path, cache = write(tmp_path / "0.tar", MEMBERS), tmp_path / "cache"
    first = content(path, cache)
    named = content(path, cache, captions=["json.caption"])
    assert named[0][1]["cause"].to_pylist() == ["no caption", "empty file", None]
    monkeypatch.setattr(tars, "Shard", None)
    assert content(path, cache) == first


def test_a_listing_in_the_cache_that_is_none_is_made_again(tmp_path):
    path, cache = write(tmp_path / "0.tar", MEMBERS), tmp_path / "cache"
    first = content(path, cache)
    (kept,) = cache.iterdir()
    for damage in (lambda: kept.write_bytes(b"x"), lambda: pq.write_table(pa.table({}), kept)):
        damage()
        assert content(path, cache) == first


def test_members_are_forgotten_once_read(tmp_path):
    path = write(tmp_path / "0.tar", [(f"{i}.jpg", b"") for i in range(300)])
    with Shard(path, {"jpg"}) as shard:
        assert len([len(shard._tar.members) for _ in shard]) == 300
        assert not shard._tar.members and shard.fault is None


def test_a_compressed_tar_is_read_at_any_place_and_anew_when_replaced(tmp_path):
    data = bytes(range(256)) * 1000
    path = tmp_path / "0.tar.gz"
    for content in (data, data[::-1] + b"x"):
        path.write_bytes(gzip.compress(content))
        for at in (0, 200_000, 5, 100_000):
            assert read_at(path, at, 300) == content[at : at + 300]
    path.write_bytes(gzip.compress(content, 0)[:100_000])
    with pytest.raises(OSError):
        read_at(path, 200_000, 10)
    assert read_at(path, 100, 10) == content[100:110]


def test_a_tar_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DatasetError, match=r"0\.tar: no shard \(No such file"):
        Shard(tmp_path / "0.tar", {"jpg"})
    (tmp_path / "1.tar").symlink_to("nowhere")
    with pytest.raises(DatasetError, match=r"1\.tar: is no file, or leads to none"):
        tars.list_tars(tmp_path)


def test_a_tar_whose_name_is_not_utf_8_is_one_line(tmp_path):
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tar")), MEMBERS)
    with pytest.raises(DatasetError, match=r"'caf.udce9\.tar' is not UTF-8"):
        tars.list_tars(tmp_path)


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        ({}, [("txt", None), ("json", "caption"), ("json", "TEXT")]),
        ({"captions": "cap"}, [("cap", None)]),
        ({"captions": [".Cap.TXT", "JSON.Alt.Text"]}, [("cap.txt", None), ("json", "Alt.Text")]),
        (
            {"captions": ["meta.json.a", "json.b.json.c"]},
            [("meta.json", "a"), ("json", "b.json.c")],
        ),
    ],
)
def test_where_captions_are(keys, places):
    source = SourceConfig.model_validate({"tars": {"folder": "x", **keys}})
    assert source.tars.caption_places == places


@pytest.mark.parametrize(
    "keys", [{"captions": []}, {"captions": "json"}, {"images": ["a/b"]}, {"images": "."}]
)
def test_what_names_no_member(keys):
    with pytest.raises(ValueError, match=r"as in|one place"):
        TarsConfig(folder="x", **keys)
