"""Odd lists of URLs, and folders of embeddings."""

import json
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from odd.cases import Pairs, Queries
from odd.tables import BAD, write

FOUR = [f"drawing {i}" for i in range(4)]
PLAIN = {"url": "url", "caption": "caption"}


@cache
def urls() -> list[str]:
    """Four drawings on a web server that ends with this process."""
    from conftest import Web, distinct_images

    server = Web()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return [server.url(f"images/{path}") for path in distinct_images()["path"].to_pylist()[:80:20]]


def url_list(
    content: Callable[[], Any], name: str = "l.csv", filters: dict | None = None, **how
) -> Callable[[Path], dict]:
    """A list, made when its case runs; `content` gives one file, or many by name."""

    def make(folder: Path) -> dict:
        made = content()
        for path, data in (made if isinstance(made, dict) else {name: made}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write(folder / path, data)
        place = folder if isinstance(made, dict) else folder / name
        return {"urls": {"path": str(place), "columns": PLAIN} | how, "filters": filters or {}}

    return make


def lines(head: str = "url,caption", more: list[str] | None = None) -> Callable[[], str]:
    """CSV of the four drawings; `more` is the rest of each line."""

    def content() -> str:
        ends = more or [""] * 4
        every = zip(urls(), FOUR, ends, strict=True)
        return "\n".join([head, *(f"{url},{text}{end}" for url, text, end in every)]) + "\n"

    return content


def table(**columns) -> Callable[[], pa.Table]:
    return lambda: pa.table({"url": urls(), "caption": FOUR} | columns)


def halves(one: Callable[[pa.Table], Any], other: Callable[[pa.Table], Any]) -> Callable[[], dict]:
    """A list in two files, each half made in another way."""
    return lambda: {
        "a.parquet": one(table()().slice(0, 2)),
        "b.parquet": other(table()().slice(2)),
    }


def cast(kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(1, "caption", t["caption"].cast(pa.string()).cast(kind))


SCORES = [",1", ",2", ",0.4", ", "]
SCORED = {"columns": PLAIN | {"similarity": "similarity", "keep": ["similarity"]}}
HEAD = "url,caption,similarity"
ODD_NAMES = 'url,caption,cause,row_key,xmore_url,a.b,"c""d",HOST'
KEPT = ["cause", "row_key", "xmore_url", "a.b", 'c"d', "HOST", "filename"]

LISTS = [
    Pairs("CSV", url_list(lines()), FOUR),
    Pairs(
        "a comma without marks",
        url_list(lambda: lines()() + f"{urls()[0]},a, b\n"),
        FOUR,
        {BAD: 1},
    ),
    Pairs(
        "whole numbers, then a fraction",
        url_list(lines(HEAD, SCORES), filters={"min_similarity": 0.3}, **SCORED),
        FOUR[:3],
    ),
    Pairs(
        "a condition on text",
        url_list(lines(HEAD, SCORES), where="similarity > 0.3 and similarity < 2", **SCORED),
        [FOUR[0], FOUR[2]],
    ),
    Pairs(
        "a condition on what is no number",
        url_list(lines(HEAD, [*SCORES[:3], ",n/a"]), where="similarity > 0.3", **SCORED),
        refused=r"`urls.where`.*VARCHAR.*similarity",
    ),
    Pairs(
        "a score that is no number",
        url_list(
            lines(HEAD, [",nan", ",n/a", ",", ",1"]), filters={"min_similarity": 0.3}, **SCORED
        ),
        [FOUR[3]],
    ),
    Pairs(
        "URLs alone, unasked", url_list(lambda: "\n".join(urls()), "l.txt"), refused="caption: null"
    ),
    Pairs(
        "URLs alone",
        url_list(lambda: "\ufeff" + "\r\n".join([*urls(), ""]), "l.txt", columns={"caption": None}),
        [""] * 4,
    ),
    Pairs(
        "JSON lines, zipped",
        url_list(
            lambda: "\n".join(
                json.dumps({"url": u, "caption": c, "n": n})
                for u, c, n in zip(urls(), ["7", 1.5, True, ["x"]], range(4), strict=True)
            ),
            "l.jsonl.gz",
            where="n >= 0",
        ),
        ["7", "1.5", "true"],
        {BAD: 1},
    ),
    Pairs(
        "odd names of columns",
        url_list(
            lines(ODD_NAMES, [",1,2,3,4,5,6"] * 4),
            columns=PLAIN | {"keep": KEPT},
            where='"a.b" = 4 and xmore_url = 3',
        ),
        FOUR,
    ),
    Pairs(
        "two columns of URLs",
        url_list(lines("url,caption,url", [",x"] * 4)),
        refused="two columns `url`",
    ),
    Pairs("an empty list", url_list(lambda: ""), refused="l.csv: is empty"),
    Pairs("a header alone", url_list(lambda: "url,caption\n"), refused="l.csv.*no rows"),
    Pairs(
        "bytes",
        url_list(table(caption=pa.array([b"caf\xc3\xa9", b"\xe9", b"c", b"d"])), "l.parquet"),
        ["café", "c", "d"],
        {"not UTF-8": 1},
    ),
    Pairs(
        "lists of captions",
        url_list(table(caption=[["a", "b"]] * 4), "l.parquet"),
        refused=r"`caption` is of type VARCHAR\[\]",
    ),
    Pairs("string and large string", url_list(halves(lambda t: t, cast(pa.large_string()))), FOUR),
    Pairs("string and bytes", url_list(halves(lambda t: t, cast(pa.binary()))), FOUR),
    Pairs(
        "a second file without captions",
        url_list(halves(lambda t: t, lambda t: t.select(["url"]))),
        refused=r"b.parquet: no column `caption`",
    ),
    Pairs(
        "folders of parts",
        url_list(
            lambda: {
                "a=1/data_0.csv": "url,caption\n" + f"{urls()[0]},one\n",
                "a=2/data_0.csv": "caption,url\n" + f"two,{urls()[1]}\n",
                "[x]/*.csv.gz": "url,caption\n" + f"{urls()[2]},three\n",
                "_SUCCESS": b"",
                "._data.csv": b"\0",
                ".x/data_0.csv": b"\0",
                "README.txt": b"a note",
            }
        ),
        ["one", "two", "three"],
    ),
    Pairs(
        "URLs with spaces and letters",
        url_list(
            lambda: pa.table(
                {
                    "url": [
                        urls()[0] + "?a b",
                        "\ufeff" + urls()[1] + "?ü",
                        urls()[2].replace("http", "HTTP") + "#x",
                        urls()[3].replace("http:", ""),
                    ],
                    "caption": FOUR,
                }
            ),
            "l.parquet",
        ),
        FOUR[:3],
        {"not a usable URL": 1},
    ),
]


def unit(rows: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(rows, 16))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)


def embedded(change: Callable[[Path], Any] = lambda folder: None) -> Callable[[Path], dict]:
    """A folder of clip-retrieval's with four rows in two files, then changed."""

    def make(folder: Path) -> dict:
        for kind in ("img_emb", "metadata"):
            (folder / kind).mkdir()
        for i in (0, 1):
            np.save(folder / "img_emb" / f"img_emb_{i}.npy", unit(2, i))
            pairs = {"url": [f"http://h/{2 * i}", f"http://h/{2 * i + 1}"]}
            metadata(folder, i, pa.table(pairs | {"caption": FOUR[2 * i : 2 * i + 2]}))
        change(folder)
        return {"clip_retrieval": {"folder": str(folder)}}

    return make


def metadata(folder: Path, number: int, rows: pa.Table) -> None:
    pq.write_table(rows, folder / "metadata" / f"metadata_{number}.parquet")


def second(column: str, values: list | pa.Array | None) -> Callable[[Path], dict]:
    """The second file's column is another one; None: it has none."""

    def change(folder: Path) -> None:
        rows = pq.read_table(folder / "metadata" / "metadata_1.parquet")
        if column in rows.column_names:
            rows = rows.drop_columns([column])
        if values is not None:
            rows = rows.append_column(column, pa.array(values))
        metadata(folder, 1, rows)

    return embedded(change)


def saved(
    array: np.ndarray, kind: str = "img_emb", number: int = 1, **how
) -> Callable[[Path], dict]:
    def change(folder: Path) -> None:
        (folder / kind).mkdir(exist_ok=True)
        np.save(folder / kind / f"{kind}_{number}.npy", array, **how)

    return embedded(change)


def renumbered(folder: Path) -> None:
    for i in (1, 0):
        path = folder / "metadata" / f"metadata_{i}.parquet"
        path.rename(folder / "metadata" / f"metadata_{i + 1}.parquet")


def archive(folder: Path) -> None:
    with (folder / "img_emb" / "img_emb_1.npy").open("wb") as stream:
        np.savez(stream, unit(2, 1))


def texts(folder: Path) -> None:
    (folder / "text_emb").mkdir()
    for i in (1, 2):
        np.save(folder / "text_emb" / f"text_emb_{i}.npy", unit(2, i))


def note(folder: Path) -> None:
    (folder / "img_emb" / "._img_emb_0.npy").write_bytes(b"?")
    (folder / "metadata" / "._metadata_0.parquet").write_bytes(b"?")


LONG = np.vstack([unit(1500, 1), np.full((1, 16), np.nan, np.float16)])


def long(folder: Path) -> None:
    np.save(folder / "img_emb" / "img_emb_1.npy", LONG)
    count = len(LONG)
    metadata(folder, 1, pa.table({"url": ["u"] * count, "caption": ["c"] * count}))


FOLDERS = [
    Pairs("embeddings", embedded(), FOUR),
    Pairs(
        "other numbers", embedded(renumbered), refused=r"img_emb_0.npy has no partner of its number"
    ),
    Pairs("other numbers of texts", embedded(texts), refused="img_emb_0.npy has no partner"),
    Pairs(
        "texts of other rows",
        embedded(
            lambda f: [
                texts(f),
                (f / "text_emb/text_emb_2.npy").rename(f / "text_emb/text_emb_0.npy"),
                np.save(f / "text_emb/text_emb_1.npy", unit(3, 1)),
            ]
        ),
        refused=r"text_emb_1.npy has 3 rows but img_emb_1.npy has 2",
    ),
    Pairs("hidden files", embedded(note), FOUR),
    Pairs("large strings second", second("caption", pa.array(FOUR[2:], pa.large_string())), FOUR),
    Pairs("a dictionary second", second("caption", pa.array(FOUR[2:]).dictionary_encode()), FOUR),
    Pairs("bytes second", second("caption", [b"caf\xc3\xa9", b"d"]), [*FOUR[:2], "café", "d"]),
    Pairs("bytes in no UTF-8", second("caption", [b"\xe9", b"d"]), [*FOUR[:2], "\ufffd", "d"]),
    Pairs(
        "no captions second",
        second("caption", None),
        refused="metadata_1.parquet: has 0 columns `caption`",
    ),
    Pairs(
        "lists second",
        second("caption", [["a"], ["b"]]),
        refused="metadata_1.parquet: column `caption` is of type list",
    ),
    Pairs("null captions", second("caption", [None, "d"]), [*FOUR[:2], "", "d"]),
    Pairs(
        "keys that are numbers",
        second("url", pa.array([5, 6])),
        refused="a column has another type",
    ),
    Pairs("columns of our names", second("cause", ["a", "b"]), FOUR),
    Pairs("DuckDB's names", second("filename", ["a", "b"]), FOUR),
    Pairs("float32", saved(unit(2, 1).astype(np.float32)), FOUR),
    Pairs("float64", saved(unit(2, 1).astype(np.float64)), FOUR),
    Pairs(
        "Fortran's order",
        saved(np.asfortranarray(unit(2, 1))),
        refused="img_emb_1.npy: is in Fortran order",
    ),
    Pairs(
        "objects",
        saved(np.array([["x"] * 16] * 2, object)),
        refused="img_emb_1.npy: not a readable array",
    ),
    Pairs("an archive", embedded(archive), refused="img_emb_1.npy: not a readable array"),
    Pairs(
        "nothing",
        embedded(lambda f: (f / "img_emb/img_emb_1.npy").write_bytes(b"")),
        refused="img_emb_1.npy: not a readable array",
    ),
    Pairs(
        "whole numbers", saved(np.eye(2, 16, dtype=np.int8)), refused="img_emb_1.npy: shape.*int8"
    ),
    Pairs("one dimension", saved(unit(2, 1).ravel()), refused=r"img_emb_1.npy: shape \(32,\)"),
    Pairs("other dimensions", saved(unit(2, 1)[:, :8]), refused="expected 16 dimensions"),
    Pairs(
        "a row more",
        saved(unit(3, 1)),
        refused="img_emb_1.npy has 3 rows but metadata_1.parquet has 2",
    ),
    Pairs("long rows", saved(3 * unit(2, 1)), refused="img_emb_1.npy: row 0 is not a unit vector"),
    Pairs(
        "no number far on", embedded(long), refused="img_emb_1.npy: row 1500 is not a unit vector"
    ),
    Pairs(
        "a file without rows",
        embedded(
            lambda f: [
                np.save(f / "img_emb/img_emb_2.npy", unit(0, 1)),
                metadata(
                    f,
                    2,
                    pa.table(
                        {"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())}
                    ),
                ),
            ]
        ),
        FOUR,
    ),
    Pairs(
        "no rows",
        embedded(
            lambda f: [
                (f / "img_emb/img_emb_1.npy").unlink(),
                (f / "metadata/metadata_1.parquet").unlink(),
                np.save(f / "img_emb/img_emb_0.npy", unit(0, 1)),
                metadata(f, 0, pq.read_table(f / "metadata/metadata_0.parquet").slice(0, 0)),
            ]
        ),
        refused="has no rows",
    ),
]
CASES: list[Pairs | Queries] = [*LISTS, *FOLDERS]
