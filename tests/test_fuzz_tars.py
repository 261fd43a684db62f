"""Whatever a tar holds, in whatever order, each of its images is a row or counted by cause."""

import gzip
import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import ANY, one_line
from webdataset.tariterators import base_plus_ext

from index_build.sources.tars import OTHER, _read
from xmore.config.sources import TarsConfig
from xmore.datasets.sources import WebdatasetSource
from xmore.files.errors import XmoreError
from xmore.images.decode import IMAGE_SUFFIXES
from xmore.images.webdataset import DAMAGED, MORE, NO_END, read_at, split_name

MAX_BYTES = 40
SECOND_CAPTION = "second caption of a key"
KINDS = (tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
keys = st.sampled_from(["a", "b", "./a", "part.0/a", "x/./a", "../a", "/a", "é\udce9", "a" * 120])
endings = st.sampled_from(
    ["jpg", "JPG", "png", "seg.png", "txt", "json", "cls", "npy", "", "jpg.txt"]
)
names = st.builds("{}.{}".format, keys, endings) | st.sampled_from(
    ["._a.jpg", "__MACOSX/a.jpg", ".jpg", "jpg", "a/.jpg", "a/"]
)
data = st.binary(max_size=MAX_BYTES + 10) | st.sampled_from(
    [b"", b"a cat", b'{"caption": "a"}', b'{"TEXT": ["\\ud800"]}', b"1", b"[" * 99_999, b"caf\xe9"]
)
members = st.lists(
    st.tuples(names, st.sampled_from((*KINDS[:1] * 6, *KINDS[1:])), data), max_size=12
)


def written(content: list, kind: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, errors="surrogateescape") as tar:
        for name, type_, body in content:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, "a.jpg"
            member.size = len(body) if type_ == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(body))
    return out.getvalue()


def listed(path: Path) -> list[dict]:
    """A tar's rows: those without a cause are read again where they should be."""
    rows = _read(path, TarsConfig(folder=path.parent), MAX_BYTES).to_pylist()
    for row in rows:
        if row["cause"] is None:
            found = read_at(path, row["offset"], row["bytes"])
            assert hashlib.sha256(found).hexdigest() == row["memory_key"]
    return rows


def asked(content: list, endings: set[str]) -> int:
    """How many members have one of these endings, by webdataset's own rule."""
    count = 0
    for name, type_, _ in content:
        _, ending = base_plus_ext(name.removeprefix("./"))
        hidden = name.rpartition("/")[2].startswith(".") or "__MACOSX" in name
        if type_ != tarfile.DIRTYPE and not hidden and ending is not None:
            count += ending.lower() in endings
    return count


IMAGES = {suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES}
formats = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@ANY
@given(members, formats, st.booleans())
def test_images_are_rows_or_counted(content, kind, compressed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.tar"
        tar = written(content, kind)
        path.write_bytes(gzip.compress(tar) if compressed else tar)
        causes = [row["cause"] for row in listed(path)]
        assert not {DAMAGED, MORE, NO_END} & set(causes)
        of_images = [cause for cause in causes if cause not in (SECOND_CAPTION, OTHER)]
        assert len(of_images) == asked(content, IMAGES)


@ANY
@given(members, formats, st.data())
def test_a_cut_tar_keeps_what_was_whole(content, kind, more):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.tar"
        tar = written(content, kind)
        path.write_bytes(tar)
        whole = {row["member"]: row for row in listed(path)}
        end = len(tar.rstrip(b"\0"))
        at = more.draw(st.integers(0, end))
        path.write_bytes(tar[:at])
        try:
            rows = listed(path)
        except XmoreError as error:
            one_line(error)
            return
        assert rows[-1]["cause"] == NO_END
        found = {row["member"] for row in rows}
        for name, row in whole.items():
            if name is not None and row["offset"] is not None:
                assert name in found or row["offset"] + row["bytes"] >= at or row["cause"]


@ANY
@given(members, formats, st.data())
def test_any_bytes_in_a_tar(content, kind, more):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tar = bytearray(written(content, kind))
        for _ in range(more.draw(st.integers(1, 4))):
            at = 512 * more.draw(st.integers(0, min(len(tar) // 512, 24) - 1))
            where = more.draw(st.sampled_from([0, 100, 124, 124, 156, 157, 345, 386, 482, 483]))
            value = more.draw(
                st.binary(max_size=12) | st.sampled_from([b"\xff" * 12, b"\x80" * 12])
            )
            tar[at + where : at + where + len(value)] = value
            if more.draw(st.booleans()):  # a header that someone means
                tar[at + 148 : at + 156] = b" " * 8
                tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
        (root / "test").mkdir()
        (root / "test" / "nshards.txt").write_text("1")
        path = root / "test" / "0.tar"
        for damaged in (tar, gzip.compress(tar)[: more.draw(st.none() | st.integers(0, 500))]):
            path.write_bytes(damaged)
            try:
                listed(path)
                found = WebdatasetSource(kind="webdataset").listing(root, ["bird", "fruit"])
                for uri in found.labels:
                    found.reader.read(uri)
            except XmoreError as error:
                one_line(error)


@ANY
@given(members, formats)
def test_a_datasets_images_are_labelled_or_rejected(content, kind):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "test").mkdir()
        (root / "test" / "0.tar").write_bytes(written(content, kind))
        (root / "test" / "nshards.txt").write_text("1")
        try:
            found = WebdatasetSource(kind="webdataset").listing(root, ["bird", "fruit"])
        except XmoreError as error:
            one_line(error)
            return
        images = [uri for uri, _ in found.rejected if not uri.lower().endswith(".cls")]
        assert len(found.labels) + len(images) == asked(content, {"jpg", "jpeg", "png", "webp"})


@ANY
@given(st.text("a./_é", max_size=12))
def test_names_are_split_as_by_webdataset(name):
    hidden = name.rpartition("/")[2].startswith(".")
    theirs = (None, None) if hidden else base_plus_ext(name)
    key, extension = split_name(name) or (None, None)
    while theirs[0] and theirs[0].startswith("./"):
        theirs = (theirs[0][2:], theirs[1])
    assert (key, extension) == theirs
