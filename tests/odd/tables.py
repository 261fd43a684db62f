"""Odd tables that name images and captions: of a memory's images, and of a dataset."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from odd.cases import Pairs, Queries, photos, pictures

BAD = "bad line in the list"
FOUR = [f"drawing {i}" for i in range(4)]
PATHS = [f"{i}.jpg" for i in range(4)]


def images(table: pa.Table | bytes | str, name: str = "") -> Callable[[Path], dict]:
    """Four drawings, 0.jpg to 3.jpg, and a table of their captions."""

    def make(folder: Path) -> dict:
        for path, data in zip(PATHS, pictures(), strict=False):
            (folder / path).write_bytes(data)
        file = folder / (name or ("captions.parquet" if isinstance(table, pa.Table) else "c.csv"))
        write(file, table)
        return {"images": {"folder": str(folder), "captions": str(file)}}

    return make


def write(file: Path, content: pa.Table | bytes | str) -> None:
    if isinstance(content, pa.Table):
        pq.write_table(content, file)
        return
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def captions(values: list | pa.Array, kind: pa.DataType | None = None) -> Callable[[Path], dict]:
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return images(pa.table({"path": PATHS, "caption": column}))


def rows(*texts: str, ending: str = "\n") -> str:
    """CSV of the four drawings; each text is the rest of its line."""
    return ending.join(["path,caption", *(f"{i}.jpg,{text}" for i, text in enumerate(texts))])


LINES = rows(*FOUR)
TAKEN = "0.jpg,drawing 0\n1.jpg,drawing 1\n2.jpg,drawing 2\n3.jpg,drawing 3\n"
JSONL = [
    json.dumps({"path": path, "caption": text}) for path, text in zip(PATHS, FOUR, strict=True)
]
JSON_NUMBERS = "".join(
    f'{{"path": "{path}", "caption": {value}}}\n'
    for path, value in zip(PATHS, ["1.50", "1e5", "true", '"007"'], strict=True)
)

MEMORY = [
    Pairs("large strings", captions(FOUR, pa.large_string()), FOUR),
    Pairs("a dictionary", captions(pa.array(FOUR).dictionary_encode()), FOUR),
    Pairs(
        "bytes",
        captions([b"caf\xc3\xa9", b"b", b"c", b"d"], pa.binary()),
        ["café", "b", "c", "d"],
    ),
    Pairs(
        "bytes in no UTF-8",
        captions([b"caf\xe9", b"b", b"c", b"d"], pa.binary()),
        ["b", "c", "d"],
        {"not UTF-8": 1},
    ),
    Pairs(
        "strings in no UTF-8",
        captions(pa.array([b"caf\xe9", b"b", b"c", None]).view(pa.string())),
        ["b", "c", ""],
        {"not UTF-8": 1},
    ),
    Pairs("no captions at all", captions([None] * 4), [""] * 4),
    Pairs(
        "lists of captions",
        captions([["a cat", "a dog"]] * 4),
        refused=r"captions.parquet: column `caption` is of type list",
    ),
    Pairs(
        "structs of captions",
        captions([{"en": "a cat"}] * 4),
        refused=r"captions.parquet: column `caption` is of type struct",
    ),
    Pairs("numbers", captions([1, 2, 3, 4]), refused=r"column `caption` is of type int64"),
    Pairs(
        "lists of paths",
        images(pa.table({"path": [[p] for p in PATHS], "caption": FOUR})),
        refused=r"column `path` is of type list",
    ),
    Pairs(
        "another column's name",
        images(pa.table({"path": PATHS, "text": FOUR})),
        refused=r"no column `caption`; it has path, text",
    ),
    Pairs("no Parquet", images(b"?", "c.parquet"), refused="c.parquet: not readable Parquet"),
    Pairs(
        "paths that are none",
        images(pa.table({"path": ["0.jpg", "", "x" * 5000, "a\0b"], "caption": FOUR})),
        ["drawing 0"],
        {"no such file": 2, "unreadable file": 1},
    ),
    Pairs(
        "a path in no UTF-8",
        images(pa.table({"path": [b"0.jpg", b"\xe9.jpg", b"2.jpg", b"3.jpg"], "caption": FOUR})),
        ["drawing 0", "drawing 2", "drawing 3"],
        {"no such file": 1},
    ),
    Pairs("CSV", images(LINES), FOUR),
    Pairs("CSV, zipped", images(LINES, "c.csv.gz"), FOUR),
    Pairs("a mark of its bytes' order", images(b"\xef\xbb\xbf" + LINES.encode()), FOUR),
    Pairs("CRLF", images(rows(*FOUR, ending="\r\n")), FOUR),
    Pairs(
        "captions like numbers",
        images(rows("007", "1e5", "1.50", "true")),
        ["007", "1e5", "1.50", "true"],
    ),
    Pairs(
        "captions like dates and nothing",
        images(rows("2020-01-01", "NA", "null", "")),
        ["2020-01-01", "NA", "null", ""],
    ),
    Pairs(
        "a comma without marks",
        images(rows("a, b", *FOUR[1:])),
        FOUR[1:],
        {BAD: 1},
    ),
    Pairs(
        "a line and marks inside marks",
        images(rows('"two\nlines"', '"a ""b"""', '"c, d"', 'e "f" g')),
        ["two\nlines", 'a "b"', "c, d", 'e "f" g'],
    ),
    Pairs("a mark never closed", images(rows('"a', *FOUR[1:])), FOUR[1:], {BAD: 1}),
    Pairs(
        "a mark that the next line closes",
        images(rows('"5 inch', '"a, b"', *FOUR[2:])),
        ["a, b", *FOUR[2:]],
        {BAD: 1},
    ),
    Pairs(
        "marks behind a backslash",
        images(rows(r'"a \"b\", c"', *FOUR[1:])),
        ['a "b", c', *FOUR[1:]],
    ),
    Pairs("a NUL", images(rows("a\0b", *FOUR[1:])), FOUR[1:], {BAD: 1}),
    Pairs(
        "a line in no UTF-8",
        images(rows("caf?", *FOUR[1:]).encode().replace(b"?", b"\xe9")),
        FOUR[1:],
        {BAD: 1},
    ),
    Pairs(
        "ragged lines",
        images("path,caption\n0.jpg\n1.jpg,drawing 1,x\n\n2.jpg,drawing 2\n"),
        ["drawing 2"],
        {BAD: 2},
    ),
    Pairs("a long line", images(rows("x" * 2_000_000, *FOUR[1:])), FOUR[1:], {BAD: 1}),
    Pairs(
        "every line bad",
        images("path,caption\n0.jpg\n1.jpg\n"),
        refused=r"2 of 2 rows failed \(2 bad line.*c.csv, line 2: 1 values in 2 columns",
    ),
    Pairs("an empty file", images(b""), refused="c.csv: is empty"),
    Pairs("a header alone", images("path,caption\n"), refused="c.csv: has no rows"),
    Pairs("no header", images(TAKEN), refused=r"no column `path`; it has 0.jpg, drawing 0"),
    Pairs(
        "a header twice",
        images("path,caption,caption\n0.jpg,a,b\n"),
        refused=r"c.csv: two columns `caption`",
    ),
    Pairs(
        "other columns twice, and unnamed",
        images("path,x,X,,caption\n0.jpg,1,2,3,a\n"),
        ["a"],
    ),
    Pairs("UTF-16", images(LINES.encode("utf-16")), refused="c.csv: line 1.*UTF-16"),
    Pairs(
        "a damaged zip",
        images(gzip.compress(LINES.encode())[:-12], "c.csv"),
        refused="c.csv: cannot be read",
    ),
    Pairs(
        "TSV",
        images("path\tcaption\n" + '0.jpg\t"5 inch\n1.jpg\ta, b\n2.jpg\n', "c.tsv"),
        ['"5 inch', "a, b"],
        {BAD: 1},
    ),
    Pairs("JSON lines", images("\n".join(JSONL), "c.jsonl.gz"), FOUR),
    Pairs(
        "JSON without captions",
        images('{"path": "0.jpg"}\n', "c.jsonl"),
        refused="c.jsonl: no column `caption`; it has path",
    ),
    Pairs(
        "captions in plain text", images("a\nb\n", "c.txt"), refused="c.txt: not readable Parquet"
    ),
    Pairs("numbers in JSON", images(JSON_NUMBERS, "c.jsonl"), ["1.50", "1e5", "true", "007"]),
    Pairs(
        "bad JSON",
        images(
            "\n".join(
                [
                    JSONL[0],
                    '{"path": "1.jpg", "caption": ["a", "b"]}',
                    '{"path": "1.jpg", "caption": "\\ud800"}',
                    "[" * 200_000,
                    "[]",
                    '{"path": "2.jpg"',
                    JSONL[3],
                ]
            ),
            "c.jsonl",
        ),
        ["drawing 0", "drawing 3"],
        {BAD: 5},
    ),
]


def card(
    table: pa.Table | bytes | str | Callable[[Path], str], name: str = "", **changes
) -> Callable[[Path], dict]:
    """Four photos, a.jpg to d.jpg, and a table of their labels."""

    def make(folder: Path) -> dict:
        for letter, data in zip("abcd", photos(), strict=False):
            (folder / f"{letter}.jpg").write_bytes(data)
        content = table(folder) if callable(table) else table
        file = name or ("t.parquet" if isinstance(content, pa.Table) else "t.csv")
        write(folder / file, content)
        return {"root": ".", "source": {"kind": "table", "file": file}} | changes

    return make


def labels(values: list | pa.Array, kind: pa.DataType | None = None, **changes):
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return card(pa.table({"path": [f"{c}.jpg" for c in "abcd"], "label": column}), **changes)


def listed(*texts: str, ending: str = "\n") -> str:
    lines = (f"{letter}.jpg,{text}" for letter, text in zip("abcd", texts, strict=False))
    return ending.join(["path,label", *lines]) + ending


TWO = ["bird", "bird", "tool", "tool"]
NAMES = {"0": "bird", "1": "tool"}
CARDS = [
    Queries("names in CSV", card(listed(*TWO)), TWO),
    Queries("zipped CSV", card(listed(*TWO), "t.csv.gz"), TWO),
    Queries("CSV by another name", card(listed(*TWO), "t.txt"), TWO),
    Queries("a mark and CRLF", card("\ufeff" + listed(*TWO, ending="\r\n")), TWO),
    Queries("TSV", card(listed(*TWO).replace(",", "\t"), "t.tsv"), TWO),
    Queries(
        "JSON lines",
        card(
            "".join(f'{{"path": "{c}.jpg", "label": {i // 2}}}\n' for i, c in enumerate("abcd")),
            "t.jsonl",
            classes=NAMES,
        ),
        TWO,
    ),
    Queries("numbers as text", labels(["0", "0", "1", "1"], classes=NAMES), TWO),
    Queries("numbers in CSV", card(listed("0", "0", "1", "1"), classes=NAMES), TWO),
    Queries("numbers as floats", labels([0.0, 0.0, 1.0, 1.0], classes=NAMES), TWO),
    Queries("large strings", labels(TWO, pa.large_string()), TWO),
    Queries("a dictionary", labels(pa.array(TWO).dictionary_encode()), TWO),
    Queries("spaces around names", card(listed("bird", "bird ", " tool", "tool")), TWO),
    Queries(
        "names like numbers",
        card(listed("007", "007", "true", "1e5")),
        ["007", "007", "1e5", "true"],
    ),
    Queries(
        "classes that are numbers",
        card(listed("7", "7", "8", "8"), classes={"a": "7", "b": "8"}),
        ["7", "7", "8", "8"],
    ),
    Queries(
        "numbers or names",
        card(listed("1", "1", "0", "0"), classes={"a": "1", "b": "0"}),
        refused="t.csv: row 0: label '1' is a class name, and the number of another",
    ),
    Queries("a half", labels([0, 0.5, 1, 1], classes=NAMES), refused="t.parquet: column `label`"),
    Queries("no label", labels(["bird", None, "tool", "tool"]), refused="t.parquet: row 1"),
    Queries("an empty label", card(listed("bird", "", "tool", "tool")), refused="t.csv: row 1"),
    Queries("a negative label", card(listed("0", "-1", "1", "1"), classes=NAMES), refused="row 1"),
    Queries("truth", labels([True, True, False, False]), refused="column `label` is of type bool"),
    Queries("lists", labels([["bird"]] * 4), refused="column `label` is of type list"),
    Queries(
        "a name of no class",
        card(listed("bird", "bird", "tool", "tol"), classes=NAMES),
        refused="t.csv: row 3.*'tol'",
    ),
    Queries("a dot", card(listed(*TWO).replace("a.jpg", "./a.jpg")), TWO),
    Queries(
        "an image twice",
        card(listed(*TWO) + "./b.jpg,tool\n"),
        refused=r"row 4: './b.jpg' is listed twice; first in row 1",
    ),
    Queries("whole paths", card(lambda folder: listed(*TWO).replace("a.", f"{folder}/a.")), TWO),
    Queries("a path elsewhere", card(listed(*TWO).replace("a.", "/etc/a.")), refused="row 0.*/etc"),
    Queries("a ragged line", card(listed("bird", "a,b", "tool", "x")), refused="t.csv: line 3"),
    Queries(
        "a wrong column", card(listed(*TWO).replace("label", "y")), refused="no column `label`"
    ),
    Queries(
        "a path in no UTF-8",
        card(pa.table({"path": [b"a.jpg", b"\xe9.jpg"], "label": ["bird", "tool"]})),
        refused="t.parquet: row 1",
    ),
    Queries(
        "bytes", card(pa.table({"path": [b"a.jpg", b"c.jpg"], "label": [b"x", b"y"]})), ["x", "y"]
    ),
    Queries("no Parquet", card(b"?", "t.parquet"), refused="t.parquet: not readable Parquet"),
]
CASES: list[Pairs | Queries] = [*MEMORY, *CARDS]
