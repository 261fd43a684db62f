"""Odd tars, of a memory and of a dataset."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from odd.cases import Pairs, Queries, photos, pictures

Members = list[tuple[str | tarfile.TarInfo, bytes]]


def write_tar(path: Path, members: Members, format: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=format, errors="surrogateescape") as tar:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def special(name: str, kind: bytes, to: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member that is no regular file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member, b""


def image(name: str, number: int) -> tuple[str, bytes]:
    return name, pictures()[number]


def text(name: str, caption: str | bytes) -> tuple[str, bytes]:
    return name, caption if isinstance(caption, bytes) else caption.encode()


def pair(key: str, number: int, caption: str | None = None) -> Members:
    return [image(f"{key}.jpg", number), text(f"{key}.txt", caption or f"drawing {number}")]


def pairs(count: int, key: str = "{}") -> Members:
    return [member for i in range(count) for member in pair(key.format(i), i)]


def drawings(*numbers: int) -> list[str]:
    return [f"drawing {i}" for i in numbers]


def shard(
    *members: tuple[str | tarfile.TarInfo, bytes],
    file: str = "0.tar",
    change: Callable[[bytes], bytes] = bytes,
    format: int = tarfile.PAX_FORMAT,
    **keys: object,
) -> Callable[[Path], dict]:
    """A source of one tar, the bytes of which are changed once it is written."""

    def make(folder: Path) -> dict:
        path = folder / file
        write_tar(path, list(members), format)
        path.write_bytes(change(path.read_bytes()))
        return {"tars": {"folder": str(folder), **keys}}

    return make


def lazily(make: Callable[[], Callable[[Path], dict]]) -> Callable[[Path], dict]:
    """A case whose members are made when it runs: pictures are read from the demo."""
    return lambda folder: make()(folder)


def wds(
    make: Callable[[], Members], change: Callable[[bytes], bytes] = bytes, classes: int = 2
) -> Callable[[Path], dict]:
    """A card of a webdataset of one shard."""

    def made(folder: Path) -> dict:
        test = folder / "test"
        test.mkdir()
        write_tar(test / "0.tar", make())
        (test / "0.tar").write_bytes(change((test / "0.tar").read_bytes()))
        (test / "nshards.txt").write_text("1")
        (folder / "classnames.txt").write_text("\n".join(["bird", "fruit"][:classes]))
        return {"root": ".", "source": {"kind": "webdataset"}}

    return made


def query(key: str, number: int, label: str | None = None) -> Members:
    """Queries 0, 2, ... are birds."""
    label = str(number % 2) if label is None else label
    return [(f"{key}.jpg", photos()[number]), (f"{key}.cls", label.encode())]


def queries(count: int, key: str = "{}") -> Members:
    return [member for i in range(count) for member in query(key.format(i), i)]


def header(tar: bytes, member: str) -> int:
    """Where a member's header is."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getmember(member).offset


def without_end(tar: bytes) -> bytes:
    return tar.rstrip(b"\0") + b"\0" * (-len(tar.rstrip(b"\0")) % 512)


def cut_before(member: str, more: int = 0) -> Callable[[bytes], bytes]:
    return lambda tar: tar[: header(tar, member) + more]


def spoil(member: str, at: int, value: bytes, checksum: bool = True) -> Callable[[bytes], bytes]:
    """Write over a header; mend its checksum, as a program would that means it."""

    def change(tar: bytes) -> bytes:
        start = header(tar, member)
        block = bytearray(tar[start : start + 512])
        block[at : at + len(value)] = value
        if checksum:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        return tar[:start] + bytes(block) + tar[start + 512 :]

    return change


def sparse() -> Members:
    """A file with a sparse map in PAX headers that is none."""
    member = tarfile.TarInfo("2.jpg")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    return [*pairs(2), (member, b"x" * 512), *pair("3", 3)]


def hole() -> Members:
    """A good sparse file of GNU's PAX kind: its data is not where it seems to be."""
    member = tarfile.TarInfo("2.jpg")
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "2.jpg",
        "GNU.sparse.realsize": "700",
    }
    data = b"1\n0\n4\n".ljust(512, b"\0") + b"data"
    return [*pairs(2), (member, data), text("2.txt", "a hole")]


def chain(tar: bytes) -> bytes:
    """Before the second image, many headers about the next member, none of a member."""
    at = header(tar, "1.jpg")
    one = tarfile.TarInfo("x").create_pax_header(tarfile.TarInfo("ä").get_info(), "utf-8")
    return tar[:at] + one[:1024] * 3000 + tar[at:]


def two_shards(folder: Path) -> dict:
    for number in range(2):
        write_tar(folder / f"{number}.tar", pair("same", number))
    return {"tars": {"folder": str(folder)}}


def beside(file: str, content: bytes) -> Callable[[Path], dict]:
    """A folder with a tar, and with another file."""

    def make(folder: Path) -> dict:
        (folder / file).write_bytes(content)
        return shard(*pairs(2))(folder)

    return make


def alone(file: str | None, content: bytes = b"") -> Callable[[Path], dict]:
    def make(folder: Path) -> dict:
        if file:
            (folder / file).write_bytes(content)
        return {"tars": {"folder": str(folder)}}

    return make


def facts(key: str, number: int, content: object) -> Members:
    """An image with JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return [image(f"{key}.jpg", number), (f"{key}.json", data)]


def one(*members: object) -> Callable[[], Members]:
    """The pair 0, then more."""
    return lambda: [*pairs(1), *[member for make in members for member in make()]]


def source(make: Callable[[], Members], **keys: object) -> Callable[[Path], dict]:
    return lazily(lambda: shard(*make(), **keys))


def with_facts(content: object, **keys: object) -> Callable[[Path], dict]:
    """The pair 0, and an image 1 with JSON."""
    return source(one(lambda: facts("1", 1, content)), **keys)


def hard_links() -> Members:
    link = special("again/2.jpg", tarfile.LNKTYPE, "stored/1.jpg")
    return [*pairs(1), *pair("stored/1", 1), link, text("again/2.txt", "drawing 1 again")]


BIG = 20_000_001  # the default of download.max_bytes, and one
SECOND = "second image of a key"

CASES: list[Pairs | Queries] = [
    Pairs("plain", source(lambda: pairs(4)), drawings(0, 1, 2, 3)),
    # Names
    Pairs("of-a-folder-itself", source(lambda: pairs(4, "./{}")), drawings(0, 1, 2, 3)),
    Pairs("a-folder-with-a-dot", source(lambda: pairs(4, "part.0/{}")), drawings(0, 1, 2, 3)),
    Pairs(
        "folders-within",
        source(lambda: pair("a/b/k", 0) + pair("a/k", 1) + pair("./k", 2)),
        drawings(0, 1, 2),
    ),
    Pairs(
        "a-caption-by-another-path-to-the-key",
        source(one(lambda: [image("./1.jpg", 1), text("1.txt", "drawing 1")])),
        drawings(0, 1),
    ),
    Pairs(
        "capitals",
        source(one(lambda: [image("K.JPG", 1), text("K.TXT", "drawing 1")])),
        drawings(0, 1),
    ),
    Pairs(
        "a-mask-beside",
        source(one(lambda: [*pair("k", 1), image("k.seg.png", 2)])),
        drawings(0, 1),
    ),
    Pairs(
        "a-mask-named",
        source(lambda: [*pair("k", 1), image("k.seg.png", 2)], images="seg.png"),
        drawings(1),
    ),
    Pairs(
        "paths-that-lead-out",
        source(lambda: pair("/etc/k", 0) + pair("../../k", 1) + pair("a/../k", 2)),
        drawings(0, 1, 2),
    ),
    Pairs("names-in-no-utf-8", source(lambda: pairs(2, "caf\udce9{}")), drawings(0, 1)),
    Pairs(
        "names-in-no-utf-8-of-gnu",
        source(lambda: pairs(2, "caf\udce9{}"), format=tarfile.GNU_FORMAT),
        drawings(0, 1),
    ),
    Pairs("long-names-of-pax", source(lambda: pairs(2, "é/" * 200 + "{}")), drawings(0, 1)),
    Pairs(
        "long-names-of-gnu",
        source(lambda: pairs(2, "folder/" * 50 + "{}"), format=tarfile.GNU_FORMAT),
        drawings(0, 1),
    ),
    Pairs(
        "what-macos-adds",
        source(
            one(lambda: [("._0.jpg", b"x"), ("./._1.jpg", b"x"), *pair("__MACOSX/a/._2", 2)]),
        ),
        drawings(0),
    ),
    Pairs("hidden-members", source(one(lambda: pair(".hidden", 1))), drawings(0)),
    Pairs("members-without-a-dot", source(one(lambda: [image("jpg", 1)])), drawings(0)),
    Pairs("the-same-names-in-two-tars", two_shards, drawings(0, 1)),
    # Twice
    Pairs(
        "the-same-member-twice",
        source(one(lambda: pair("1", 1), lambda: [image("1.jpg", 2)])),
        drawings(0, 1),
        {SECOND: 1},
    ),
    Pairs(
        "two-images-of-a-key",
        source(one(lambda: pair("1", 1), lambda: [image("1.png", 2)])),
        drawings(0, 1),
        {SECOND: 1},
    ),
    Pairs(
        "the-same-image-by-another-path",
        source(one(lambda: [image("./0.jpg", 2)])),
        drawings(0),
        {SECOND: 1},
    ),
    Pairs(
        "two-captions-of-a-key",
        source(one(lambda: [text("0.txt", "another")])),
        drawings(0),
        {"second caption of a key": 1},
    ),
    Pairs(
        "appended-again",
        source(lambda: pairs(2) + pairs(2)),
        drawings(0, 1),
        {SECOND: 2, "second caption of a key": 2},
    ),
    # Damage
    Pairs(
        "cut-between-members",
        source(lambda: pairs(4), change=cut_before("2.jpg")),
        drawings(0, 1),
        {"no end of archive": 1},
    ),
    Pairs(
        "no-end",
        source(lambda: pairs(2), change=without_end),
        drawings(0, 1),
        {"no end of archive": 1},
    ),
    Pairs(
        "one-zero-block-at-the-end",
        source(lambda: pairs(2), change=lambda tar: without_end(tar) + b"\0" * 512),
        drawings(0, 1),
    ),
    Pairs(
        "cut-in-an-image",
        source(lambda: [text("2.txt", "cut"), *pairs(4)], change=cut_before("2.jpg", 700)),
        drawings(0, 1),
        {"truncated or damaged": 1, "no end of archive": 1},
    ),
    Pairs(
        "cut-in-a-header",
        source(lambda: pairs(4), change=cut_before("2.jpg", 100)),
        drawings(0, 1),
        {"no end of archive": 1},
    ),
    Pairs(
        "cut-in-a-header-of-pax",
        source(
            lambda: pairs(2) + pairs(1, "é{}"), change=lambda tar: tar[: tar.index(b"path=") + 500]
        ),
        drawings(0, 1),
        {"no end of archive": 1},
    ),
    Pairs(
        "cut-in-what-is-not-read",
        source(lambda: [*pairs(2), ("x.npy", b"x" * 4096)], change=cut_before("x.npy", 700)),
        drawings(0, 1),
        {"no end of archive": 1},
    ),
    Pairs(
        "a-damaged-header",
        source(lambda: pairs(4), change=spoil("2.jpg", 148, b"999999", checksum=False)),
        drawings(0, 1),
        {"damaged archive": 1},
    ),
    Pairs("a-damaged-sparse-header", source(sparse), drawings(0, 1), {"damaged archive": 1}),
    Pairs("a-sparse-file", source(hole), drawings(0, 1), {"not a regular file": 1}),
    Pairs(
        "a-negative-size",
        source(lambda: pairs(4), change=spoil("2.jpg", 124, b"\xff" * 10 + b"\xf0\x00")),
        drawings(0, 1),
        {"damaged archive": 1},
    ),
    Pairs(
        "a-size-beyond-any-file",
        source(lambda: pairs(4), change=spoil("2.txt", 124, b"\x80" + b"\xff" * 11)),
        drawings(0, 1),
        {"unreadable caption": 1, "damaged archive": 1},
    ),
    Pairs(
        "an-image-beyond-any-file",
        source(lambda: pairs(4), change=spoil("2.jpg", 124, b"\x80" + b"\xff" * 11)),
        drawings(0, 1),
        {"too many bytes": 1, "damaged archive": 1},
    ),
    Pairs(
        "a-long-chain-of-headers",
        source(lambda: pairs(4), change=chain),
        drawings(0),
        {"damaged archive": 1},
    ),
    Pairs(
        "two-tars-in-one",
        source(lambda: pairs(2), change=lambda tar: tar + tar),
        drawings(0, 1),
        {"data after the end of archive": 1},
    ),
    Pairs(
        "no-tar-at-all",
        alone("0.tar", b"<html>not found</html>" * 99),
        refused=r"0\.tar: not a complete tar",
    ),
    Pairs("an-empty-file", alone("0.tar"), refused=r"0\.tar: not a complete tar"),
    Pairs("no-tars", alone(None), refused=r"source: has no \.tar"),
    Pairs("a-tar-of-nothing", source(list), refused=r"no image in its tars .*no images"),
    Pairs(
        "masks-alone",
        source(lambda: [image("k.seg.png", 1), text("k.txt", "drawing 1")]),
        refused=r"no image in its tars .*1 another extension.*tars\.images",
    ),
    Pairs(
        "a-folder-named-as-a-tar",
        lambda folder: ((folder / "x.tar").mkdir(), shard(*pairs(1))(folder))[1],
        drawings(0),
    ),
    # Captions
    Pairs("captions-first", source(lambda: pairs(3)[::-1]), drawings(0, 1, 2)),
    Pairs(
        "an-image-without-a-caption",
        source(one(lambda: [image("1.jpg", 1)])),
        drawings(0),
        {"no caption": 1},
    ),
    Pairs(
        "no-captions-at-all",
        source(lambda: [image(f"{i}.jpg", i) for i in range(3)]),
        refused=r"source: no image in its tars has a caption \(3 no caption\).*tars\.captions",
    ),
    Pairs("an-empty-caption", source(one(lambda: pair("1", 1, " \n"))), ["", *drawings(0)]),
    Pairs(
        "empty-captions-alone",
        source(lambda: pair("1", 1, " ")),
        refused="no image in its tars has a caption",
    ),
    Pairs(
        "a-byte-order-mark",
        source(one(lambda: pair("1", 1, "\ufeffa cat"))),
        ["a cat", *drawings(0)],
    ),
    Pairs(
        "a-caption-in-latin-1",
        source(one(lambda: [image("1.jpg", 1), text("1.txt", b"caf\xe9")])),
        drawings(0),
        {"unreadable caption": 1},
    ),
    Pairs(
        "a-caption-of-two-megabytes",
        source(one(lambda: pair("1", 1, "x" * 2_000_000))),
        drawings(0),
        {"unreadable caption": 1},
    ),
    Pairs("json", with_facts({"caption": " a cat\n"}), ["a cat", *drawings(0)]),
    Pairs("json-of-laion", with_facts({"TEXT": "a cat", "URL": "x"}), ["a cat", *drawings(0)]),
    Pairs("json-of-a-list", with_facts({"caption": [1, "a cat", "x"]}), ["a cat", *drawings(0)]),
    Pairs(
        "json-beside-text",
        source(one(lambda: facts("0", 1, {"caption": "another"})[1:])),
        drawings(0),
    ),
    Pairs(
        "json-with-a-mark", with_facts(b'\xef\xbb\xbf{"caption": "a cat"}'), ["a cat", *drawings(0)]
    ),
    Pairs(
        "json-with-odd-numbers",
        with_facts(b'{"a": %s, "b": NaN, "c": -Infinity, "caption": "a cat"}' % (b"9" * 9999)),
        ["a cat", *drawings(0)],
    ),
    Pairs("json-of-no-text", with_facts({"caption": 3}), drawings(0), {"no caption": 1}),
    Pairs("json-of-no-mapping", with_facts(["a cat"]), drawings(0), {"no caption": 1}),
    Pairs("json-too-deep", with_facts(b"[" * 200_000), drawings(0), {"unreadable caption": 1}),
    Pairs(
        "json-in-latin-1",
        with_facts(b'{"caption": "caf\xe9"}'),
        drawings(0),
        {"unreadable caption": 1},
    ),
    Pairs(
        "json-that-is-none", with_facts(b"{caption: a cat}"), drawings(0), {"unreadable caption": 1}
    ),
    Pairs(
        "half-of-a-pair-in-json",
        with_facts(rb'{"caption": "\ud83d"}'),
        drawings(0),
        {"unreadable caption": 1},
    ),
    # Keys that the source names
    Pairs(
        "named-keys",
        source(
            lambda: [image("0.img", 0), text("0.cap", "drawing 0"), image("0.jpg", 1)],
            images="img",
            captions=[".CAP"],
        ),
        drawings(0),
    ),
    Pairs(
        "a-named-key-of-json",
        source(
            lambda: facts("0", 0, {"caption": "x", "alt.text": "drawing 0"}),
            captions="json.alt.text",
        ),
        drawings(0),
    ),
    Pairs(
        "a-named-key-of-other-json",
        source(
            lambda: [image("0.jpg", 0), ("0.meta.json", b'{"caption": "drawing 0"}')],
            captions="meta.json.caption",
        ),
        drawings(0),
    ),
    Pairs(
        "json-without-its-key",
        source(lambda: pairs(1), captions=["json"]),
        refused=r"memory\.yaml: sources\.0\.tars\.captions: name the key too.*json\.caption",
    ),
    # Compressed
    Pairs(
        "tar-gz",
        source(lambda: pairs(4), file="0.tar.gz", change=gzip.compress),
        drawings(0, 1, 2, 3),
    ),
    Pairs(
        "tgz", source(lambda: pairs(4), file="0.TGZ", change=gzip.compress), drawings(0, 1, 2, 3)
    ),
    Pairs(
        "gzip-named-as-a-tar", source(lambda: pairs(4), change=gzip.compress), drawings(0, 1, 2, 3)
    ),
    Pairs("a-tar-named-as-gzip", source(lambda: pairs(2), file="0.tar.gz"), drawings(0, 1)),
    Pairs(
        "gzip-cut",
        source(
            lambda: pairs(4),
            file="0.tgz",
            change=lambda tar: gzip.compress(tar, 0)[: header(tar, "2.jpg") + 99],  # not compressed
        ),
        drawings(0, 1),
        {"no end of archive": 1},
    ),
    Pairs("tar-zst", beside("1.tar.zst", b"x"), refused=r"1\.tar\.zst: only \.tar"),
    Pairs("a-text-beside", beside("readme.txt", b"x"), drawings(0, 1)),
    Pairs("what-macos-adds-beside", beside("._0.tar", b"x"), drawings(0, 1)),
    # What is no regular file
    Pairs("a-hard-link", source(hard_links), [*drawings(0, 1)], {"same bytes as another row": 1}),
    Pairs(
        "a-hard-link-to-nothing",
        source(one(lambda: [special("1.jpg", tarfile.LNKTYPE, "2.jpg"), text("1.txt", "x")])),
        drawings(0),
        {"link": 1},
    ),
    Pairs(
        "a-link-that-leads-out",
        source(one(lambda: [special("1.jpg", tarfile.SYMTYPE, "/etc/passwd"), text("1.txt", "x")])),
        drawings(0),
        {"link": 1},
    ),
    Pairs(
        "a-caption-that-is-a-link",
        source(one(lambda: [image("1.jpg", 1), special("1.txt", tarfile.SYMTYPE, "/etc/passwd")])),
        drawings(0),
        {"unreadable caption": 1},
    ),
    Pairs(
        "devices-and-pipes",
        source(
            one(lambda: [special("1.jpg", tarfile.CHRTYPE), special("2.jpg", tarfile.FIFOTYPE)])
        ),
        drawings(0),
        {"not a regular file": 2},
    ),
    Pairs(
        "a-folder-named-as-an-image",
        source(one(lambda: [special("1.jpg", tarfile.DIRTYPE)])),
        drawings(0),
    ),
    # Bounds
    Pairs(
        "an-image-of-too-many-bytes",
        source(one(lambda: [("1.jpg", bytes(BIG)), text("1.txt", "x")])),
        drawings(0),
        {"too many bytes": 1},
    ),
    Pairs(
        "empty-images",
        source(one(lambda: [(f"x{i}.jpg", b"") for i in range(9)], lambda: [text("x0.txt", "x")])),
        drawings(0),
        {"empty file": 9},
    ),
    Pairs(
        "what-is-no-image",
        source(one(lambda: [("1.jpg", b"no image"), text("1.txt", "x")])),
        drawings(0),
        {"not an image": 1},
    ),
    # Datasets
    Queries("plain", wds(lambda: queries(4)), ["bird", "bird", "fruit", "fruit"]),
    Queries("of-a-folder-itself", wds(lambda: queries(2, "./{}")), ["bird", "fruit"]),
    Queries("a-folder-with-a-dot", wds(lambda: queries(2, "part.0/{}")), ["bird", "fruit"]),
    Queries(
        "paths-that-lead-out", wds(lambda: query("/k", 0) + query("../k", 1)), ["bird", "fruit"]
    ),
    Queries("names-in-no-utf-8", wds(lambda: queries(2, "caf\udce9{}")), ["bird", "fruit"]),
    Queries(
        "capitals",
        wds(lambda: [*query("0", 0), ("K.JPG", photos()[1]), ("K.CLS", b"1\n")]),
        ["bird", "fruit"],
    ),
    Queries(
        "a-mask-beside",
        wds(lambda: [*queries(2), ("0.seg.png", photos()[3]), ("0.json", b"{}")]),
        ["bird", "fruit"],
    ),
    Queries(
        "what-macos-adds",
        wds(lambda: [*queries(2), ("._0.jpg", b"x"), *query("__MACOSX/1", 2)]),
        ["bird", "fruit"],
    ),
    Queries(
        "the-same-member-twice",
        wds(lambda: [*queries(2), ("0.jpg", photos()[2])]),
        ["bird", "fruit"],
        {"test/0.tar/0.jpg": SECOND},
    ),
    Queries(
        "two-images-of-a-key",
        wds(lambda: [*queries(2), ("0.png", photos()[2])]),
        ["bird", "fruit"],
        {"test/0.tar/0.jpg": SECOND},
    ),
    Queries(
        "two-labels-of-a-key",
        wds(lambda: [*queries(2), ("0.cls", b"1")]),
        ["bird", "fruit"],
        {"test/0.tar/0.cls": "second label of a key"},
    ),
    Queries(
        "no-label",
        wds(lambda: [*queries(2), ("2.jpg", photos()[2])]),
        ["bird", "fruit"],
        {"test/0.tar/2.jpg": "no label"},
    ),
    Queries(
        "a-label-that-is-a-name",
        wds(lambda: [*queries(2), *query("2", 2, "dog")]),
        ["bird", "fruit"],
        {"test/0.tar/2.jpg": "label is not a number"},
    ),
    Queries(
        "no-image",
        wds(lambda: [*queries(2), ("2.cls", b"1")]),
        ["bird", "fruit"],
        {"test/0.tar/2.cls": "no image"},
    ),
    Queries(
        "an-empty-image",
        wds(lambda: [*queries(2), ("2.jpg", b""), ("2.cls", b"1")]),
        ["bird", "fruit"],
        {"test/0.tar/2.jpg": "empty file"},
    ),
    Queries(
        "a-link-that-leads-out",
        wds(
            lambda: [*queries(2), special("2.jpg", tarfile.SYMTYPE, "/etc/passwd"), ("2.cls", b"1")]
        ),
        ["bird", "fruit"],
        {"test/0.tar/2.jpg": "link"},
    ),
    Queries(
        "a-hard-link",
        wds(lambda: [*query("0", 0), special("1.jpg", tarfile.LNKTYPE, "0.jpg"), ("1.cls", b"1")]),
        ["bird", "fruit"],
    ),
    Queries("gzip-named-as-a-tar", wds(lambda: queries(2), gzip.compress), ["bird", "fruit"]),
    Queries(
        "a-label-too-high",
        wds(lambda: [*queries(2), *query("2", 2, "7")]),
        refused=r"test/0\.tar/2\.jpg: its label must be in \[0, 1\]",
    ),
    Queries(
        "a-label-of-many-digits",
        wds(
            lambda: [*queries(2), *query("2", 2, "9" * 9999), *query("3", 3, "1" + " " * 30 + "x")]
        ),
        ["bird", "fruit"],
        dict.fromkeys(["test/0.tar/2.jpg", "test/0.tar/3.jpg"], "label is not a number"),
    ),
    Queries(
        "no-labels-at-all",
        wds(lambda: queries(2)[::2]),
        refused=r"none of its 2 samples can be used.*test/0\.tar/0\.jpg \(no label\)",
    ),
    Queries(
        "cut-between-members",
        wds(lambda: queries(4), cut_before("2.jpg")),
        refused=r"0\.tar: not a complete tar \(no end of archive\)",
    ),
    Queries(
        "cut-in-an-image",
        wds(lambda: queries(4), cut_before("3.jpg", 700)),
        refused=r"0\.tar: not a complete tar \(no end of archive\)",
    ),
    Queries(
        "a-damaged-header",
        wds(lambda: queries(4), spoil("2.jpg", 148, b"999999", checksum=False)),
        refused=r"0\.tar: not a complete tar \(damaged archive\)",
    ),
    Queries("a-damaged-sparse-header", wds(sparse), refused=r"0\.tar: not a complete tar"),
    Queries("an-empty-file", wds(list, lambda tar: b""), refused=r"0\.tar: not a complete tar"),
]
