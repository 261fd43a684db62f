"""Odd images, and folders of images."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from odd.cases import DEMO, Pairs, Queries, photos
from odd.pixels import JPEG, READ, REJECTED

Thing = bytes | Callable[[Path], object]  # the bytes of a file, or what makes it


def put(folder: Path, things: dict[str | bytes, Thing]) -> None:
    for name, thing in things.items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(thing, bytes):
            path.write_bytes(thing)
        else:
            thing(path)


def plain(folder: Path) -> dict:
    for i, name in enumerate(("bird", "tool")):
        put(folder, {f"{name}/{j}.jpg": photos()[2 * i + j] for j in (0, 1)})
    return {"root": "."}


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def folders(
    name: str,
    things: dict[str | bytes, Thing],
    more: int = 0,
    rejected: dict[str, str] | None = None,
    refused: str = "",
    **card: object,
) -> Queries:
    """Two birds and two tools, and `things`: `more` birds, images to reject, or a refusal."""

    def make(folder: Path) -> dict:
        made = plain(folder)
        put(folder, things)
        return made | card

    classes = ["bird"] * (2 + more) + ["tool"] * 2
    return Queries(name, make, classes, rejected or {}, refused)


def coop(
    name: str,
    rows: object,
    refused: str = "",
    start: bytes = b"",
    things: dict[str | bytes, Thing] | None = None,
    **card: object,
) -> Queries:
    """A split of CoOp's; its rows are of two birds and two tools. `ROOT` stands for the root."""

    def make(folder: Path) -> dict:
        made = plain(folder)
        put(folder, things or {})
        text = json.dumps({"test": rows}).replace("ROOT", str(folder))
        (folder / "split.json").write_bytes(start + text.encode())
        return made | {"source": {"kind": "coop", "split": "split.json"}} | card

    return Queries(name, make, ["bird"] * 2 + ["tool"] * 2, {}, refused)


def pairs(name: str, things: dict[str | bytes, Thing], failures: dict[str, int]) -> Pairs:
    """A folder of four photos and `things`, all with captions that are their paths."""

    def make(folder: Path) -> dict:
        images = folder / "images"
        put(images, {f"{i}.jpg": photo for i, photo in enumerate(photos()[:4])} | things)
        paths = [f"{i}.jpg" for i in range(4)] + [str(thing) for thing in things]
        captions = folder / "captions.parquet"
        pq.write_table(pa.table({"path": paths, "caption": paths}), captions)
        return {"images": {"folder": str(images), "captions": str(captions)}}

    read = [str(thing) for thing in things][: len(things) - sum(failures.values())]
    return Pairs(name, make, captions=[f"{i}.jpg" for i in range(4)] + read, failures=failures)


BIRDS = [["bird/0.jpg", 0, "bird"], ["bird/1.jpg", 0, "bird"]]
TOOLS = [["tool/0.jpg", 1, "tool"], ["tool/1.jpg", 1, "tool"]]
STRANGE = ["new\nline", "tab\t", "'\"`", "[red]x[/red]", "100%s {0}", "🐦", "\u202egpj", "a;b&c<d>"]

CASES: list[Pairs | Queries] = [
    Queries("plain", plain, classes=["bird", "bird", "tool", "tool"]),
    *(folders(name, {f"bird/{name}": data}, more=1) for name, data in READ.items()),
    *(
        folders(name, {f"bird/{name}": data}, rejected={f"bird/{name}": cause})
        for name, (data, cause) in REJECTED.items()
    ),
    # Files and folders
    folders("texts", {"bird/readme.txt": b"x", "bird/LICENSE": b"x", "bird/IMG.001": JPEG}),
    folders("Apple's doubles", {"bird/._0.jpg": b"\0\5\x16\7", "__MACOSX/bird/._0.jpg": b"\0"}),
    folders("hidden folders", {f"{at}.ipynb_checkpoints/a.jpg": JPEG for at in ("", "bird/")}),
    folders("a desktop's files", {"bird/Thumbs.db": b"\xd0\xcf", "bird/.DS_Store": b"Bud1"}),
    folders("an underscore", {"_unknown_/a.jpg": JPEG}),
    Queries(
        "an underscore in the card",
        lambda folder: (
            put(folder, {"_bird/a.jpg": JPEG, "tool/a.jpg": JPEG})
            or {"root": ".", "classes": {"_bird": "bird", "tool": "tool"}}
        ),
        classes=["bird", "tool"],
    ),
    folders("beside the classes", {"stray.jpg": JPEG}),
    folders("folders in a class", {"bird/a/b/c.JPG": JPEG, "bird/x.jpg/y.jpg": JPEG}, more=2),
    folders("a folder like an image", {"bird/x.jpg": Path.mkdir}),
    folders("an empty class", {"empty": Path.mkdir}, refused="no images in .*empty"),
    folders("no image by suffix", {"other/a.txt": b"x"}, refused="no images in .*other"),
    folders("strange names", {f"bird/{name}.jpg": JPEG for name in STRANGE}, more=len(STRANGE)),
    folders("a long name", {"bird/" + "a" * 251 + ".jpg": JPEG}, more=1),
    folders("names by case", {"bird/A.jpg": JPEG, "bird/a.jpg": JPEG, "bird/a.JPG": JPEG}, more=3),
    folders("names by form", {"bird/\xe9.jpg": JPEG, "bird/e\u0301.jpg": JPEG}, more=2),
    folders(
        "a name of bytes",
        {b"bird/caf\xe9.jpg": JPEG},
        rejected={r"bird/caf\xe9.jpg": "name is not UTF-8"},
    ),
    folders("a class of bytes", {b"caf\xe9/a.jpg": JPEG}, refused=r"folder caf\\xe9 in .*Rename"),
    folders(
        "classes by form",
        {"\xe9/a.jpg": JPEG, "e\u0301/a.jpg": JPEG},
        refused="two classes are named '\xe9'",
    ),
    Queries(
        "a class by another form",
        lambda folder: (
            put(folder, {"e\u0301/a.jpg": JPEG, "tool/a.jpg": JPEG})
            or {"root": ".", "classes": {"\xe9": "e", "tool": "tool"}}
        ),
        classes=["e", "tool"],
    ),
    folders("bytes twice", {"bird/a.jpg": JPEG, "bird/b.jpg": JPEG}, more=2),
    folders("a pipe", {"bird/a.jpg": os.mkfifo}, rejected={"bird/a.jpg": "unreadable file"}),
    folders("a pipe without suffix", {"bird/a": os.mkfifo}),
    folders(
        "a broken link", {"bird/a.jpg": link("b.jpg")}, rejected={"bird/a.jpg": "no such file"}
    ),
    folders("a loop", {"bird/a.jpg": link("a.jpg")}, rejected={"bird/a.jpg": "unreadable file"}),
    folders(
        "a link out",
        {"bird/a.jpg": link("/dev/zero")},
        rejected={"bird/a.jpg": "link out of the root"},
    ),
    folders(
        "a device, followed",
        {"bird/a.jpg": link("/dev/zero")},
        rejected={"bird/a.jpg": "unreadable file"},
        follow_links=True,
    ),
    folders("a link inside", {"bird/a.jpg": link("0.jpg")}, more=1),
    folders("a linked class", {"class": link("/usr")}, refused="class leads out of .*follow_links"),
    folders("a linked folder", {"bird/more": link("../tool")}),
    folders("a linked folder, followed", {"bird/more": link("../tool")}, more=2, follow_links=True),
    folders("a loop of folders", {"bird/more": link("..")}, follow_links=True),
    folders(
        "a class twice",
        {"names.txt": b"bird\ta\ntool\tb\nbird\tc\n"},
        classes="names.txt",
        refused="line 3: .bird. repeats line 1",
    ),
    # CoOp's splits
    coop("coop", BIRDS + TOOLS),
    coop("coop, byte order mark", BIRDS + TOOLS, start=b"\xef\xbb\xbf"),
    coop("coop, whole paths", [["ROOT/bird/0.jpg", 0, "bird"], *BIRDS[1:], *TOOLS]),
    coop(
        "coop, a link followed",
        [["out.jpg", 0, "bird"], *BIRDS[1:], *TOOLS],
        things={"out.jpg": link(str(DEMO / "queries" / "bird" / "pelican.jpg"))},
        follow_links=True,
    ),
    coop("coop, another root", [["/etc/passwd", 0, "bird"], *TOOLS], r"test\[0\].*inside the root"),
    coop("coop, upwards", [*BIRDS, ["a/../../b.jpg", 1, "tool"]], r"test\[2\].*inside the root"),
    coop("coop, twice", [*BIRDS, ["./bird//0.jpg", 0, "bird"], *TOOLS], r"test\[2\].*listed twice"),
    coop("coop, a gap", [*BIRDS, ["tool/0.jpg", 2, "tool"]], "no image has label 1"),
    coop("coop, a huge label", [*BIRDS, ["tool/0.jpg", 10**30, "tool"]], "no image has label 1"),
    coop("coop, a label below 0", [*BIRDS, ["tool/0.jpg", -1, "tool"]], "no image has label 1"),
    coop("coop, a boolean", [*BIRDS, ["tool/0.jpg", True, "tool"]], r"test\[2\].*a label"),
    coop("coop, a text as label", [*BIRDS, ["tool/0.jpg", "1", "tool"]], r"test\[2\].*a label"),
    coop("coop, a path of numbers", [*BIRDS, [7, 1, "tool"]], r"test\[2\].*a path"),
    coop("coop, a row of two", [*BIRDS, ["tool/0.jpg", 1]], r"test\[2\]"),
    coop("coop, a row that is none", [*BIRDS, "abc"], r"test\[2\]"),
    coop("coop, a name of a list", [*BIRDS, ["tool/0.jpg", 1, ["x"]]], r"test\[2\].*class name"),
    coop("coop, a broken name", [*BIRDS, ["tool/0.jpg", 1, "\ud83d"]], r"test\[2\].*class name"),
    coop("coop, a broken path", [*BIRDS, ["\ud83d.jpg", 1, "tool"]], r"test\[2\]"),
    coop("coop, two names", [*BIRDS, ["tool/0.jpg", 0, "tool"], *TOOLS], r"test\[2\].*both 'bird'"),
    coop("coop, no list", {"bird/0.jpg": 0}, "no list `test`"),
    coop("coop, a number", 5, "no list `test`"),
    coop("coop, nothing", [], "lists no test image"),
    # Images of a memory
    pairs(
        "images to read",
        {name: READ[name] for name in ("damaged eXIf.png", "long text.png", "damaged MPF.jpg")},
        {},
    ),
    pairs(
        "images to reject",
        {name: data for name, (data, _) in REJECTED.items() if name in ("float.tif", "cut.jpg")},
        {"floating-point pixels": 1, "truncated or damaged": 1},
    ),
    pairs(
        "images that are none",
        {"pipe.jpg": os.mkfifo, "zero.jpg": link("/dev/zero"), "folder.jpg": Path.mkdir},
        {"unreadable file": 3},
    ),
    pairs("a pair's broken link", {"a.jpg": link("b.jpg")}, {"no such file": 1}),
    pairs("a pair's loop", {"a.jpg": link("a.jpg")}, {"no such file": 1}),
    pairs("a pair's link out", {"a.jpg": link("/usr")}, {"unreadable file": 1}),
    pairs(
        "paths that no file can have",
        {name: lambda path: None for name in ("a" * 300, "null\0.jpg", "a/" * 50 + "b.jpg", "")},
        {"no such file": 3, "unreadable file": 1},
    ),
    pairs("hidden files that are named", {"._a.jpg": JPEG, ".b/c.jpg": JPEG + b"x"}, {}),
    pairs("any suffix that is named", {"a.dat": JPEG, "a": JPEG + b"x", "a.txt": JPEG + b"y"}, {}),
]
