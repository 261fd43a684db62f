"""Datasets as other tools and file servers leave them, and cards as other tools write them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from odd.cases import Pairs, Queries, photos
from odd.images import folders, put
from odd.pixels import JPEG, array, encoded, flag
from odd.texts import FILE, PETS, card, classes
from odd.texts import folders as named
from PIL import Image

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
JPEG_2000 = encoded(flag(), "JPEG2000")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
LAUGHS = "a: &a0 [x, x]\n" + "".join(
    f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(12)
)
NO_NUMBERS = "1: .*number.*Write only the names"


def table(text: str, names: str | None = "cat\ndog\n", file: str = "test.csv") -> Callable:
    """Two images, 0.jpg and 1.jpg, and a table of them as its author wrote it."""

    def make(folder: Path) -> dict:
        for i in (0, 1):
            (folder / f"{i}.jpg").write_bytes(photos()[i])
        (folder / file).write_bytes(text.encode("latin-1"))
        made = {"root": ".", "source": {"kind": "table", "file": file}}
        if names is not None:
            (folder / "names.txt").write_text(names)
            made["classes"] = "names.txt"
        return made

    return make


def torchvision_imagenet(folder: Path) -> dict:
    """torchvision's ImageNet, whose names are tuples of synonyms."""
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    for i, wnid in enumerate(names):
        put(folder, {f"val/{wnid}/a.JPEG": photos()[i]})
    torch.save((names, ["n01440764"]), folder / "meta.bin")
    source = {"kind": "torchvision", "dataset": "ImageNet", "options": {"split": "val"}}
    return {"root": ".", "source": source}


def torchvision_captions(folder: Path) -> dict:
    """A dataset of torchvision's whose labels are captions."""
    put(folder, {"a.jpg": photos()[0], "ann.txt": b"a.jpg#0\ta bird\n"})
    options = {"ann_file": str(folder / "ann.txt")}
    source = {"kind": "torchvision", "dataset": "Flickr30k", "options": options}
    return {"root": ".", "source": source, "classes": {"a": "a", "b": "b"}}


CASES: list[Pairs | Queries] = [
    # Lists of classes in other formats
    Queries("numbered", classes(b"0: cat\n1: dog\n"), refused=FILE + NO_NUMBERS),
    Queries("numbered from 1", classes(b"1. cat\n2. dog\n"), refused=FILE + NO_NUMBERS),
    Queries("numbered, spaces", classes(b"1 001.Cat\n2 002.Dog\n"), refused=FILE + NO_NUMBERS),
    Queries("numbered by commas", classes(b"0,cat\n1,dog\n"), refused=FILE + NO_NUMBERS),
    Queries(
        "numbered below a header",
        classes(b"label,name\n0,cat\n1,dog\n"),
        refused=FILE + "2: .*number",
    ),
    Queries("numbers behind", classes(b"cat 0\ndog 1\n"), ["cat 0", "dog 1"]),
    Queries("numbers alone", classes(b"0\n1\n"), ["0", "1"]),
    Queries("numbers out of order", classes(b"2 euros\n1 euro\n"), ["1 euro", "2 euros"]),
    Queries("numbers and tabs", classes(b"0\tcat\n1\tdog\n"), ["cat", "dog"]),
    Queries(
        "numbers and tabs, in another order",
        classes(b"1\tcat\n0\tdog\n"),
        refused=FILE + "2: .*number.*order",
    ),
    Queries("a JSON list", classes(b'["cat",\n"dog"]\n'), refused=FILE + "1: .*JSON"),
    Queries(
        "a JSON list, a line each",
        classes(b'[\n  "cat",\n  "dog"\n]\n'),
        refused=FILE + "1: .*JSON",
    ),
    Queries("a JSON object", classes(b'{"0": "cat",\n"1": "dog"}'), refused=FILE + "1: .*JSON"),
    Queries("a Python dict", classes(b"{0: 'cat',\n 1: 'dog'}"), refused=FILE + "1: .*JSON"),
    Queries("quotes", classes(b'"cat"\n"dog"\n'), refused=FILE + "1: .*quotes"),
    Queries("quotes and commas", classes(b"'cat',\n'dog',\n"), refused=FILE + "1: .*quotes"),
    Queries("one in quotes", classes(b"'possum'\ndog\n"), ["'possum'", "dog"]),
    Queries(
        "ImageNet's mapping",
        classes(b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n"),
        refused=FILE + "1: .*WordNet",
    ),
    Queries(
        "ImageNet's mapping of folders",
        named("n01440764", "n01443537", text=b"n01440764 tench\nn01443537 goldfish\n"),
        refused=FILE + "1: .*WordNet",
    ),
    Queries("names for folders", named("a", "b", text=b"cat\ndog\n"), refused="folder<TAB>name"),
    Queries("names that are folders", named("a", "b", text=b"a\nb\n"), refused="folder<TAB>name"),
    # Tables
    Queries("labels of pandas", table("path,label\n0.jpg,0.0\n1.jpg,1.0\n"), ["cat", "dog"]),
    Queries(
        "labels of pandas without names",
        table("path,label\n0.jpg,0.0\n1.jpg,1.0\n", None),
        refused="no class names",
    ),
    Queries("a half label", table("path,label\n0.jpg,0.5\n1.jpg,1.0\n"), refused="row 0.*'0.5'"),
    Queries("a spreadsheet", table("PK\3\4\xe9\0", file="test.xlsx"), refused=r"test\.xlsx"),
    Queries(
        "paths of Windows",
        table("path,label\n0.jpg,0\n.\\1.jpg,1\n"),
        ["cat"],
        {".\\1.jpg": "no such file"},
    ),
    # Folders
    folders(
        "a file server's thumbnails",
        {
            "bird/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg": JPEG,
            "@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg": JPEG,
            "#recycle/bird/9.jpg": JPEG,
        },
    ),
    folders(
        "a disk's own folders",
        {
            "$RECYCLE.BIN/a.jpg": JPEG,
            "System Volume Information/IndexerVolumeGuid": b"x",
            "lost+found": Path.mkdir,
            "bird/desktop.ini": b"x",
            "bird/ehthumbs.db": b"x",
        },
    ),
    folders(
        "an export",
        {
            "README.dataset.txt": b"x",
            "data.yaml": b"x",
            "bird/_annotations.coco.json": b"{}",
            "bird/_classes.csv": b"x",
        },
    ),
    folders(
        "HEIC as JPEG", {"bird/IMG_1.JPG": HEIC}, rejected={"bird/IMG_1.JPG": "not an image"}
    ),
    folders("HEIC", {"bird/IMG_1.HEIC": HEIC}),
    folders(
        "JPEG 2000 as JPEG", {"bird/a.jpg": JPEG_2000}, rejected={"bird/a.jpg": "not an image"}
    ),
    folders("a pointer of LFS", {"bird/a.jpg": POINTER}, rejected={"bird/a.jpg": "not an image"}),
    folders("a dot at the end", {"bird/a.jpg.": JPEG}, more=1),
    folders("two suffixes", {"bird/a.png.jpg": JPEG, "bird/a.jpg.part": b"x"}, more=1),
    folders(
        "deep pixels",
        {
            "bird/a.tif": array(np.full((8, 8, 4), 200), np.uint8, "TIFF"),
            "bird/b.webp": encoded(flag().convert("RGBA"), "WEBP", lossless=True),
            "bird/c.bmp": encoded(flag().convert("RGBA"), "BMP"),
            "bird/d.tif": encoded(flag().convert("CMYK"), "TIFF"),
            "bird/e.png": encoded(Image.new("LA", (9, 9), (0, 0)), "PNG"),
        },
        more=5,
    ),
    Queries("emoji", named("🐱 cat", "🐶"), ["🐱 cat", "🐶"]),
    # torchvision
    Queries("synonyms", torchvision_imagenet, ["goldfish", "tench"]),
    Queries("captions as labels", torchvision_captions, refused="item 0.*label"),
    # Cards
    Queries("numbers alike", card(PETS + "classes: {1: cat, 1.0: dog}\n", "1", "1.0"),
            ["cat", "dog"]),
    Queries("a truth and a number", card(PETS + "classes: {true: cat, 1: dog}\n", "true", "1"),
            ["cat", "dog"]),
    Queries("a folder of nothing", card(PETS + "classes: {null: cat, ~: dog}\n", "null", "~"),
            ["cat", "dog"]),
    Queries("a list as key", card(PETS + "classes: {[a]: cat, b: dog}\n"), refused="line 3"),
    Queries("merged classes", card(PETS + "classes: {<<: {a: cat}, b: dog}\n"), ["cat", "dog"]),
    Queries("a document", card("%YAML 1.2\n---\n" + PETS + "...\n"), ["a", "b"]),
    Queries("two documents", card(PETS + "---\nname: other\n"),
            refused="line 3: .*single document"),
    Queries("an anchor twice", card(PETS + "title: &a x\nlicence: &a y\n"),
            refused="line 4: .*duplicate anchor"),
    Queries("an anchor of nothing", card(PETS + "title: *a\n"), refused="line 3: .*undefined"),
    Queries("JSON", card(json.dumps({"name": "odd", "root": "images"})), ["a", "b"]),
    Queries("an emoji of JSON", card(json.dumps(
        {"name": "odd", "root": "images", "classes": {"a": "😀", "b": "dog"}})), ["dog", "😀"]),
    Queries("half an emoji", card(PETS + 'classes: {a: "\\ud83d", b: dog}\n'), refused="line 3"),
    Queries("a null byte", card(PETS + 'licence: "a\\0b"\n'), refused="line 3: .*control"),
    Queries("a null byte in a path", card('name: odd\nroot: "ima\\0ges"\n'), refused="line 2"),
    Queries("bytes", card(PETS + "title: !!binary aGVsbG8=\n"), ["a", "b"]),
    Queries("bytes as a name", card(PETS + "classes: {a: !!binary /w==, b: dog}\n"),
            refused=r"card\.yaml: .*classes"),
    Queries("a set", card(PETS + "classes: !!set {a, b}\n"), refused=r"card\.yaml: .*classes"),
    Queries("a loop", card(PETS + "classes: &a {a: cat, b: *a}\n"), refused=r"card\.yaml: "),
    Queries("a loop of options", card(
        "name: odd\nroot: .\nsource: {kind: torchvision, dataset: FakeData, options: &a {x: *a}}\n"
    ), refused=r"card\.yaml: .*contains itself|alias"),
    Queries("a billion laughs", card(LAUGHS + PETS + "title: *a12\n"), refused=r"card\.yaml: "),
    Queries("brackets", card(PETS + "title: " + "[" * 3000), refused=r"card\.yaml"),
    Queries("many digits", card(PETS + "version: " + "9" * 5000), refused=r"card\.yaml"),
    Queries("a large exponent", card(PETS + "version: 1e400\n"), refused="`version`"),
    Queries("a wrong count", card(PETS + "expected: {classes: 2, images: 3}\n"),
            refused="2 test images, the card expects 3"),
    Queries("a wrong count of classes", card(PETS + "expected: {classes: 3, images: 2}\n"),
            refused="2 classes, the card expects 3"),
]  # fmt: skip
