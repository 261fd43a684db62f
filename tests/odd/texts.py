"""Odd text files, YAML files and places."""

from collections.abc import Callable
from pathlib import Path

from odd.cases import Pairs, Queries, photos


def classes(text: bytes) -> Callable[[Path], dict]:
    """A table of an image of class 0 and one of class 1, whose names are in a file."""

    def make(folder: Path) -> dict:
        for i in (0, 1):
            (folder / f"{i}.jpg").write_bytes(photos()[i])
        (folder / "test.csv").write_text("path,label\n0.jpg,0\n1.jpg,1\n")
        (folder / "names.txt").write_bytes(text)
        table = {"kind": "table", "file": "test.csv"}
        return {"root": ".", "classes": "names.txt", "source": table}

    return make


def folders(*names: str, text: bytes | None = None) -> Callable[[Path], dict]:
    """An image in each folder; the classes are those of a file, if given."""

    def make(folder: Path) -> dict:
        for i, name in enumerate(names):
            (folder / "images" / name).mkdir(parents=True)
            (folder / "images" / name / "x.jpg").write_bytes(photos()[i])
        card = {"root": "images"}
        if text is not None:
            (folder / "names.txt").write_bytes(text)
            card["classes"] = "names.txt"
        return card

    return make


def card(text: str, *names: str) -> Callable[[Path], dict]:
    """A card as its author wrote it, over folders of one image each."""

    def make(folder: Path) -> dict:
        folders(*names or ("a", "b"))(folder)
        (folder / "card.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
        return {}

    return make


PETS = "name: odd\nroot: images\n"
FILE = r"names\.txt, line "
CASES: list[Pairs | Queries] = [
    Queries("mark", classes(b"\xef\xbb\xbfcat\ndog\n"), ["cat", "dog"]),
    Queries("spaces", classes(b" cat \ndog\t\n"), ["cat", "dog"]),
    Queries("windows", classes(b"cat\r\ndog\r\n"), ["cat", "dog"]),
    Queries("old-mac", classes(b"cat\rdog\r"), ["cat", "dog"]),
    Queries("no-end", classes(b"cat\ndog"), ["cat", "dog"]),
    Queries("blank-end", classes(b"cat\ndog\n\n \n"), ["cat", "dog"]),
    Queries("blank-between", classes(b"cat\n\ndog\n"), refused=FILE + "2: is blank"),
    Queries("blank-first", classes(b"\ncat\ndog\n"), refused=FILE + "1: is blank"),
    Queries("comments", classes(b"# Source: a paper\n#\ncat\ndog\n"), ["cat", "dog"]),
    Queries("hash", classes(b"#1 dad\n#2 dad\n"), ["#1 dad", "#2 dad"]),
    Queries("hash-below", classes(b"cat\n# 2 dad\n"), ["# 2 dad", "cat"]),
    Queries("separator", classes("cat\u2028dog\ncow\n".encode()), refused=FILE + "1: .*control"),
    Queries("next-line", classes("cat\u0085dog\ncow\n".encode()), refused=FILE + "1: .*control"),
    Queries("form-feed", classes(b"cat\ndog\x0ccow\n"), refused=FILE + "2: .*control"),
    Queries("null", classes(b"cat\ndo\0g\n"), refused=FILE + "2: .*control"),
    Queries("latin-1", classes(b"cat\nbl\xe9\n"), refused=FILE + "2: not UTF-8"),
    Queries("utf-16", classes("cat\ndog\n".encode("utf-16")), refused=FILE + "1: not UTF-8"),
    Queries("emoji", classes("👨‍👩‍👧\n犬\n".encode()), sorted(["👨‍👩‍👧", "犬"])),
    Queries("double", classes(b"cat\ncat \n"), refused="named 'cat', 0 and 1"),
    Queries("double-plain", classes(b"big_cat\nbig cat\n"), refused="named 'big cat'"),
    Queries("empty", classes(b""), refused="row 0: its label|no class"),
    Queries("one", classes(b"cat\n"), refused=r"row 1: its label must be in \[0, 0\]"),
    Queries("absent", lambda folder: classes(b"")(folder) | {"classes": "gone.txt"},
            refused=r"gone\.txt: cannot be read"),
    Queries("a-folder", lambda folder: classes(b"")(folder) | {"classes": "."},
            refused="cannot be read"),
    Queries("folder-tab", folders("a", "b", text=b"\xef\xbb\xbfb\tdog\na\tcat \n"),
            ["cat", "dog"]),
    Queries("folder-twice", folders("a", "b", text=b"a\tcat\nb\tdog\na\tcow\n"),
            refused=FILE + "3: 'a' repeats line 1"),
    Queries("folder-some", folders("a", "b", text=b"a\tcat\ndog\n"), refused=FILE + "2"),
    Queries("two-tabs", folders("a", "b", text=b"a\tcat\tx\nb\tdog\ty\n"), refused=FILE + "1"),
    Queries("folder-no-name", folders("a", "b", text=b"a\tcat\nb\t\n"), refused=FILE + "2"),
    Queries("folders-alike", folders("big_cat", "big cat"), refused="named 'big cat'"),
    Queries("folder-spaces", folders("cat_", "dog "), ["cat", "dog"]),
    Queries("key-twice", card(PETS + "root: other\n"), refused=r"card\.yaml, line 3: .*`root`"),
    Queries("folder-key-twice", card(PETS + "classes: {a: x, b: y, a: z}\n"),
            refused=r"card\.yaml, line 3: .*`a` is there twice"),
    Queries("no", card(PETS + "classes: {a: no, b: on}\n"), ["no", "on"]),
    Queries("no-folder", card(PETS + "classes: {no: nein, y: ja}\n", "no", "y"), ["ja", "nein"]),
    Queries("true", card(PETS + "classes: {a: true, b: dog}\n"), refused="quotes"),
    Queries("nothing", card(PETS + "classes: {a: , b: dog}\n"), refused="quotes"),
    Queries("numbers", card(PETS + "classes: {a: 007, b: 1.50}\n"), ["007", "1.50"]),
    Queries("number-folders", card(PETS + "classes: {1: cat, 02: dog}\n", "1", "02"),
            ["cat", "dog"]),
    Queries("dates", card(PETS + "classes: {a: 2020-01-01, b: 12:30}\n"), ["12:30", "2020-01-01"]),
    Queries("quoted", card(PETS + "classes: {a: 'true', b: \"no\"}\n"), ["no", "true"]),
    Queries("yaml-mark", card("\ufeff" + PETS), ["a", "b"]),
    Queries("yaml-windows", card(PETS.replace("\n", "\r\n")), ["a", "b"]),
    Queries("yaml-latin-1", card(PETS + "title: \udce9t\n"), refused=r"line 3: not UTF-8"),
    Queries("yaml-tab", card("name: odd\n\troot: images\n"), refused=r"card\.yaml, line 2"),
    Queries("yaml-list", card("- name: odd\n"), refused=r"card\.yaml: must contain keys"),
    Queries("yaml-empty", card(""), refused=r"card\.yaml: is empty"),
    Queries("yaml-object", card(PETS + "title: !!python/object:os.system x\n"),
            refused=r"card\.yaml, line 3"),
    Queries("name-number", card("name: 2024\nroot: images\n"), refused="quotes"),
    Queries("merge", card("x: &x {}\n" + PETS), refused="unknown key `x`"),
]  # fmt: skip
