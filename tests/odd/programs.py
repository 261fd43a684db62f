"""Files as other programs write them: img2dataset, pandas, Spark, Excel, datasets, tar."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from odd.cases import Pairs, Queries, pictures
from odd.lists import FOUR, PLAIN, embedded, lines, metadata, table, unit, url_list, urls
from odd.tables import BAD, TWO, card, images, listed, rows
from odd.tars import (
    Members,
    drawings,
    facts,
    image,
    one,
    pair,
    pairs,
    query,
    source,
    special,
    text,
    wds,
    without_end,
    write_tar,
)

NO_URL = "not a usable URL"


def moved(
    make: Callable[[Path], dict], change: Callable[[Path, Path], Any], kind: str
) -> Callable[[Path], dict]:
    """A source in a folder of its own, and what `change` makes of it: it gets both folders."""

    def made(folder: Path) -> dict:
        inner = folder / "inner"
        inner.mkdir()
        found = make(inner)
        place = change(folder, inner)
        if place is not None:
            found[kind]["folder" if "folder" in found[kind] else "path"] = str(place)
        return found

    return made


def linked(folder: Path, inner: Path) -> Path:
    """Another folder, whose files are links."""
    other = folder / "other"
    other.mkdir()
    for path in inner.iterdir():
        (other / path.name).symlink_to(path)
    return other


def through_a_link(folder: Path, inner: Path) -> Path:
    (folder / "link").symlink_to(inner)
    return folder / "link"


def read_only(folder: Path, inner: Path) -> None:
    for path in (*inner.rglob("*"), inner):
        path.chmod(path.stat().st_mode & ~0o222)


# Tars


def img2dataset(folder: Path) -> dict:
    """A shard of img2dataset's: every sample with text and JSON, and its three files."""
    made: Members = []
    for i in range(2):
        told = {"key": f"00000000{i}", "caption": f"drawing {i}", "status": "success"}
        told |= {"url": f"http://h/{i}", "error_message": None, "exif": "{}", "sha256": "0" * 64}
        made += [*facts(f"00000000{i}", i, told), text(f"00000000{i}.txt", f"drawing {i}")]
    write_tar(folder / "00000.tar", made, tarfile.GNU_FORMAT)
    (folder / "00000_stats.json").write_text('{"count": 2, "successes": 2}')
    pq.write_table(pa.table({"url": ["http://h/0", "http://h/1"]}), folder / "00000.parquet")
    return {"tars": {"folder": str(folder)}}


def version_7(tar: bytes) -> bytes:
    """Headers without a magic number, as before 1988."""
    blocks = bytearray(tar)
    for at in range(0, len(tar), 512):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 257 : at + 512] = bytes(255)
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
    return bytes(blocks)


def of_tars() -> Members:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for name, data in pairs(2):
            member = tarfile.TarInfo(str(name))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return [("inner.tar", inner.getvalue())]


def from_macos() -> Members:
    """As bsdtar writes it there: a resource fork before each member, and times in PAX headers."""
    made: Members = []
    for name, data in pairs(2, "./{}"):
        member = tarfile.TarInfo(str(name))
        member.pax_headers = {"mtime": "1700000000.25", "LIBARCHIVE.xattr.com.apple": "eA"}
        made += [(f"./._{str(name)[2:]}", b"\0\5\x16\7"), (member, data)]
    return made


def many(folder: Path) -> dict:
    """Hundreds of tars, of which few have anything."""
    for i in range(300):
        write_tar(folder / f"{i:05d}.tar", pair("k", i // 100) if i % 100 == 0 else [])
    return {"tars": {"folder": str(folder)}}


def webp() -> Members:
    from PIL import Image

    made: Members = []
    for i in range(2):
        out = io.BytesIO()
        Image.open(io.BytesIO(pictures()[i])).convert("RGB").save(out, "WEBP", lossless=True)
        made += [(f"{i}.webp", out.getvalue()), text(f"{i}.txt", f"drawing {i}")]
    return made


def split_gzip(tar: bytes) -> bytes:
    """Members of gzip one after another, as pigz and bgzip write them, and zeros of a tape."""
    return gzip.compress(tar[:5000]) + gzip.compress(tar[5000:]) + bytes(512)


TARS = [
    Pairs("img2dataset", img2dataset, drawings(0, 1)),
    Pairs(
        "datacomp",
        source(
            lambda: [
                *facts("0", 0, {"uid": "x", "face_bboxes": [[0.1]], "sha256": "0"}),
                text("0.txt", "drawing 0"),
                *facts("1", 1, {"caption": "drawing 1", "uid": "y"}),
                text("1.txt", ""),
            ]
        ),
        ["", *drawings(0)],
    ),
    Pairs("version 7", source(lambda: pairs(2), change=version_7), drawings(0, 1)),
    Pairs(
        "ustar",
        source(lambda: pairs(2, "a/" * 60 + "{}"), format=tarfile.USTAR_FORMAT),
        drawings(0, 1),
    ),
    Pairs("a tar of tars", source(of_tars), refused="no image in its tars has a caption"),
    Pairs("a tar in a tar", source(one(of_tars)), drawings(0)),
    Pairs("macOS", source(from_macos), drawings(0, 1)),
    Pairs("names of Windows", source(lambda: pairs(2, "train\\{}")), drawings(0, 1)),
    Pairs(
        "a volume's label",
        source(lambda: [special("backup.jpg", b"V"), *pairs(2)]),
        drawings(0, 1),
        {"not a regular file": 1},
    ),
    Pairs("webp", source(webp), drawings(0, 1)),
    Pairs(
        "gzip in pieces", source(lambda: pairs(2), file="0.tgz", change=split_gzip), drawings(0, 1)
    ),
    Pairs("many tars", many, drawings(0, 1, 2)),
    Pairs("links to tars", moved(source(lambda: pairs(2)), linked, "tars"), drawings(0, 1)),
    Pairs(
        "a link to a folder",
        moved(source(lambda: pairs(2)), through_a_link, "tars"),
        drawings(0, 1),
    ),
    Pairs("read only", moved(source(lambda: pairs(2)), read_only, "tars"), drawings(0, 1)),
    Pairs(
        "extensions upon extensions",
        source(one(lambda: [image("1.jpg", 1), text("1.jpg.txt", "drawing 1")])),
        drawings(0),
        {"no caption": 1},
    ),
    Pairs(
        "captions of several lines",
        source(one(lambda: pair("1", 1, "a cat\r\nand a dog\r\n"))),
        ["a cat\r\nand a dog", *drawings(0)],
    ),
    Pairs(
        "a tape's padding cut",
        source(lambda: pairs(2), change=lambda tar: without_end(tar) + bytes(1024)),
        drawings(0, 1),
    ),
    Queries(
        "labels of several lines",
        wds(lambda: [*query("0", 0, "0\r\n"), *query("1", 1, " 1 ")]),
        ["bird", "fruit"],
    ),
    Queries(
        "labels as fractions",
        wds(lambda: [*query("0", 0), *query("1", 1), *query("2", 2, "1.0")]),
        ["bird", "fruit"],
        {"test/0.tar/2.jpg": "label is not a number"},
    ),
]

# Lists


def parts(*more: tuple[str, Any]) -> Callable[[], dict]:
    """What Spark writes: a folder for each table, with marks of success and checksums."""

    def made() -> dict:
        found: dict[str, Any] = {}
        for i in range(2):
            part = f"{i}.parquet/part-0000{i}-c000.snappy.parquet"
            found[part] = table()().slice(2 * i, 2)
            folder, name = part.split("/")
            found |= {f"{folder}/_SUCCESS": b"", f"{folder}/.{name}.crc": b"crc"}
        return found | dict(more)

    return made


def alone(folder: Path, inner: Path) -> Path:
    return inner / "0.parquet"


def a_link_within(folder: Path, inner: Path) -> None:
    """A part that lies elsewhere; and a link back to where it is."""
    (inner / "1.parquet").rename(folder / "elsewhere")
    (inner / "c").symlink_to(folder / "elsewhere")
    (inner / "d").symlink_to(inner)


def a_link_to_nothing(folder: Path, inner: Path) -> None:
    (inner / "c.parquet").symlink_to(folder / "gone.parquet")


def a_name_in_no_utf_8(folder: Path, inner: Path) -> None:
    pq.write_table(table()(), inner / "x.parquet")
    (inner / "x.parquet").rename(inner / os.fsdecode(b"\xe9.parquet"))


def under(name: str, make: Callable[[Path], dict]) -> Callable[[Path], dict]:
    """A source in a folder whose name Hive would take for a column."""

    def made(folder: Path) -> dict:
        (folder / name).mkdir()
        return make(folder / name)

    return made


def every_type() -> pa.Table:
    """Columns of all types that a list may have, to be kept."""
    now = datetime(2024, 1, 1, tzinfo=UTC)
    return table(
        when=[now] * 4,
        day=pa.array([now.date()] * 4),
        price=pa.array([Decimal("1.5")] * 4),
        raw=[b"\xff"] * 4,
        tags=[["a"], None, [], ["b"]],
        about=[{"x": 1}] * 4,
        pairs=pa.array([[("a", 1)]] * 4, pa.map_(pa.string(), pa.int32())),
        nothing=pa.nulls(4),
        kind=pa.array(["a", "b", "a", None]).dictionary_encode(),
        half=pa.array(np.array([1, np.nan, np.inf, -1], np.float16)),
        __index_level_0__=[7, 8, 9, 10],
    )()


ALL = ["when", "day", "price", "raw", "tags", "about", "pairs", "nothing", "kind", "half"]
NUMBERS = ["NaN", "Infinity", "-Infinity", "0.5"]
SCORES = {"columns": PLAIN | {"similarity": "similarity"}}
SIZES = {"columns": PLAIN | {"width": "w", "height": "h"}}


def scored(values: list[Any]) -> Callable[[], pa.Table]:
    return table(similarity=values)


def odd_urls() -> pa.Table:
    first, *_ = urls()
    made = [
        ("data:image/png;base64,iVBORw0KGgo=", "data"),
        ("ftp://h/x.jpg", "ftp"),
        ("file:///etc/passwd", "file"),
        ("/images/x.jpg", "path"),
        (f"{first[:-4]}\t.jpg", "a tab within"),
        (f"{first[:-4]}\n.jpg", "a line within"),
        (f"\t{first}\r\n", "a drawing"),
        (f"{first}?a=x|y", "a drawing"),
        (f"{first}?a=%7C&b=[1]{{2}}^`", "a drawing"),
        ("http://b\u00fccher.invalid/x.jpg", "umlaut"),
        ("http://a..b/x.jpg", "empty label"),
        ("http://[::1/x.jpg", "half an address"),
        ("http://h:99999/x.jpg", "port"),
        (None, "none"),
        ("  ", "blank"),
    ]
    return pa.table({"url": [url for url, _ in made], "caption": [what for _, what in made]})


def where(condition: str, refused: str, name: str) -> Pairs:
    return Pairs(
        name, url_list(table(n=[1, 2, 3, 4]), "l.parquet", where=condition), refused=refused
    )


def finds(condition: str, captions: list[str], name: str, **columns: Any) -> Pairs:
    columns = {"n": [1, 2, 3, 4], "pretty name": ["a'b", "50%", "c", None]} | columns
    return Pairs(name, url_list(table(**columns), "l.parquet", where=condition), captions)


FOR_EVER = (
    "(with recursive t as (select 1 as i union all select i + 1 from t) select max(i) from t)"
)
CONDITIONS = [
    where(f"n < {FOR_EVER}", "`urls.where`.*query within", "a query for ever"),
    where("n in (select n from list)", "`urls.where`.*query within", "a query of the list"),
    where("exists (select 1)", "`urls.where`.*query within", "whether there is any"),
    where(
        "true) union all (select * from rows", "`urls.where`.*one condition", "a bracket too many"
    ),
    where("true group by n", "`urls.where`", "more than a condition"),
    where("true; select 1", "`urls.where`", "two queries"),
    where("random() < 0.5", "`urls.where`.*random.*sample", "chance"),
    where("now() > '2020-01-01'", "`urls.where`.*now", "the time"),
    where("current_date > '2020-01-01'", "`urls.where`.*current_date", "the day"),
    where("sleep_ms(1000000) is null", "`urls.where`.*sleep_ms", "sleep"),
    where("sum(n) > 1", "`urls.where`", "a sum"),
    where("row_number() over () < 3", "`urls.where`", "a window"),
    where("m > 1", '`urls.where`.*"m" not found.*The list has url, caption, n', "no such column"),
    where("/* n", "`urls.where`", "a comment without end"),
    where("n = ?", "`urls.where`", "a parameter"),
    where("'a", "`urls.where`", "a mark without end"),
    finds("n > 2 -- not 'these; ones", FOUR[2:], "a comment"),
    finds(
        "\"pretty name\" = 'a''b' or \"pretty name\" like '50\\%' escape '\\'",
        FOUR[:2],
        "marks and percent",
    ),
    finds('"pretty name" is null\nand n = 4', FOUR[3:], "a column with a space"),
]

LISTS = [
    Pairs("a folder of Spark's tables", url_list(parts()), FOUR),
    Pairs("a table of Spark's", moved(url_list(parts()), alone, "urls"), FOUR[:2]),
    Pairs(
        "a link to a folder of parts",
        moved(url_list(parts()), a_link_within, "urls"),
        FOUR,
    ),
    Pairs(
        "a link to nothing",
        moved(url_list(parts()), a_link_to_nothing, "urls"),
        refused=r"inner/c\.parquet: ",
    ),
    Pairs(
        "a name in no UTF-8",
        moved(url_list(parts()), a_name_in_no_utf_8, "urls"),
        refused=r"inner: .*not UTF-8",
    ),
    Pairs(
        "a folder of many columns",
        url_list(
            lambda: {
                "lang=en/year=2024/x.parquet": table()().slice(0, 2),
                "lang=de/year=__HIVE_DEFAULT_PARTITION__/x.parquet": table()().slice(2),
            },
            where="lang = 'en'",
        ),
        FOUR[:2],
    ),
    Pairs(
        "a folder named as a column", under("caption=blip", url_list(table(), "l.parquet")), FOUR
    ),
    Pairs(
        "no rows in a part",
        url_list(
            lambda: {
                "a.parquet": pa.table(
                    {"url": pa.nulls(0), "caption": pa.nulls(0), "n": pa.nulls(0)}
                ),
                "b.parquet": table(n=[1, 2, 3, 4])(),
            },
            where="n > 2",
        ),
        FOUR[2:],
    ),
    Pairs(
        "no rows at all",
        url_list(lambda: table()().slice(0, 0), "l.parquet"),
        refused=r"l\.parquet: 0 of 0 rows failed \(no rows\)",
    ),
    Pairs(
        "an empty file among parts",
        url_list(lambda: {"a.parquet": b"", "b.parquet": table()()}),
        refused=r"a\.parquet",
    ),
    Pairs(
        "an index of pandas",
        url_list(lambda: lines(",url,caption")().replace("\nhttp", "\n0,http")),
        FOUR,
    ),
    Pairs(
        "Excel's semicolons",
        url_list(lambda: "\ufeff" + lines()().replace(",", ";")),
        refused=r"l\.csv: .*separated by `;`.*commas",
    ),
    Pairs(
        "tabs in a CSV",
        url_list(lambda: lines()().replace(",", "\t")),
        refused=r"l\.csv: .*separated by tabs",
    ),
    Pairs(
        "Excel's first line",
        url_list(lambda: "sep=,\r\n" + lines()()),
        refused=r"l\.csv: .*sep=",
    ),
    Pairs(
        "UTF-16", url_list(lambda: lines()().encode("utf-16")), refused=r"l\.csv: line 1.*UTF-16"
    ),
    Pairs(
        "UTF-16 without a header",
        url_list(lambda: lines()().replace(",", "\t").encode("utf-16"), "l.tsv", columns="cc12m"),
        refused=r"rows failed .*l\.tsv, line 1 \(UTF-16",
    ),
    Pairs(
        "CC12M",
        url_list(
            lambda: "".join(
                f'{url}\t"{text}", he said\n' for url, text in zip(urls(), FOUR, strict=True)
            ),
            "cc12m.tsv",
            columns="cc12m",
        ),
        [f'"{text}", he said' for text in FOUR],
    ),
    Pairs(
        "lines joined, each with its header",
        url_list(lambda: "\ufeff" + lines()() + "\ufeffurl,caption\nurl,caption\n"),
        FOUR,
        {BAD: 2},
    ),
    Pairs(
        "quoted lines in captions",
        url_list(
            lambda: f'url,caption\r\n{urls()[0]},"a ""cat""\r\n, and; a\tdog"\r\n{urls()[1]},b\r\n'
        ),
        ['a "cat"\r\n, and; a\tdog', "b"],
    ),
    Pairs(
        "the end of a file of DOS",
        url_list(lambda: lines()() + "\x1a"),
        FOUR,
        {BAD: 1},
    ),
    Pairs(
        "lines of an old Mac",
        url_list(lambda: lines()().replace("\n", "\r")),
        refused=r"l\.csv: line 1",
    ),
    Pairs(
        "an array of JSON",
        url_list(lambda: json.dumps([{"url": u} for u in urls()]), "l.jsonl"),
        refused=r"l\.jsonl, line 1 \(not an object of JSON",
    ),
    Pairs(
        "a file of JSON", url_list(lambda: "[]", "l.json"), refused=r"l\.json: .*one kind of.*json"
    ),
    Pairs("a zip of pandas", url_list(lambda: b"PK", "l.csv.zip"), refused=r"l\.csv\.zip: .*zip"),
    Pairs(
        "one pair many times",
        url_list(lambda: pa.table({"url": [urls()[0]] * 4, "caption": ["a"] * 4}), "l.parquet"),
        ["a"],
    ),
    Pairs(
        "odd URLs",
        url_list(odd_urls, "l.parquet"),
        ["a drawing"],
        {NO_URL: 9, "no such host": 1, "no URL": 2, "same bytes as another row": 2},
    ),
    Pairs(
        "scores that are no numbers",
        url_list(
            scored([float("nan"), float("inf"), -1.0, None]),
            "l.parquet",
            {"min_similarity": 0.3},
            **SCORES,
        ),
        FOUR[1:2],
    ),
    Pairs(
        "scores as words",
        url_list(scored(NUMBERS), "l.parquet", {"min_similarity": 0.3}, **SCORES),
        [FOUR[1], FOUR[3]],
    ),
    Pairs(
        "a bound that is no number",
        url_list(scored([1.0] * 4), "l.parquet", {"min_similarity": "nan"}, **SCORES),
        refused=r"memory\.yaml: .*filters\.min_similarity.*finite number",
    ),
    Pairs(
        "a bound beyond all numbers",
        url_list(scored([1.0] * 4), "l.parquet", {"min_similarity": "inf"}, **SCORES),
        refused=r"memory\.yaml: .*filters\.min_similarity.*finite number",
    ),
    Pairs(
        "a sample of no number",
        url_list(table(), "l.parquet", sample="nan"),
        refused=r"memory\.yaml: .*sample",
    ),
    Pairs(
        "sizes that are none",
        url_list(
            table(w=["-5", "300", "1e3", "x"], h=["-5", "300", "", "300"]),
            "l.parquet",
            {"min_size": 200},
            **SIZES,
        ),
        FOUR[1:2],
    ),
    Pairs(
        "columns of all types",
        url_list(every_type, "l.parquet", columns=PLAIN | {"keep": ALL}),
        FOUR,
    ),
    Pairs(
        "columns of all types, unkept",
        url_list(every_type, "l.parquet", where="half > 0"),
        [FOUR[0], FOUR[1], FOUR[2]],
    ),
    Pairs(
        "two columns of one name",
        url_list(
            lambda: pa.table([urls(), FOUR, FOUR[::-1]], names=["url", "caption", "caption"]),
            "l.parquet",
        ),
        refused=r"l\.parquet: two columns `caption`",
    ),
    Pairs(
        "images of datasets",
        url_list(
            lambda: pa.table({"image": [{"bytes": b"x", "path": "0.jpg"}] * 2, "text": ["a", "b"]}),
            "l.parquet",
            columns={"url": "image", "caption": "text"},
        ),
        refused=r"l\.parquet: column `image` is of type STRUCT",
    ),
    *CONDITIONS,
]

# Tables of captions and of labels

HF = pa.table(
    {"image": [{"bytes": b"x", "path": "0.jpg"}] * 4, "text": FOUR, "label": [0, 0, 1, 1]}
)
TABLES = [
    Pairs(
        "an index of pandas",
        images(rows(*FOUR).replace("\n", "\n9,").replace("path", ",path")),
        FOUR,
    ),
    Pairs(
        "Excel's semicolons",
        images("\ufeff" + rows(*FOUR, ending="\r\n").replace(",", ";")),
        refused=r"c\.csv: .*separated by `;`",
    ),
    Pairs("images of datasets", images(HF), refused="no column `path`; it has image, text, label"),
    Pairs(
        "metadata of datasets",
        images('{"file_name": "0.jpg", "text": "a"}\n', "metadata.jsonl"),
        refused="no column `path`; it has file_name, text",
    ),
    Pairs(
        "paths of Windows",
        images(rows(*FOUR).replace("0.jpg", ".\\0.jpg")),
        FOUR[1:],
        {"no such file": 1},
    ),
    Pairs("paths with a dot", images(rows(*FOUR).replace("0.jpg", "./0.jpg")), FOUR),
    Pairs(
        "paths that lead out",
        images(rows(*FOUR).replace("0.jpg", "/etc/passwd").replace("1.jpg", "../../x.jpg")),
        FOUR[2:],
        {"unreadable file": 1, "no such file": 1},
    ),
    Pairs(
        "one image, many captions",
        images(rows(*FOUR) + "\n0.jpg,drawing 0\n./0.jpg,again\n"),
        FOUR,
        {"same row twice": 1, "same bytes as another row": 1},
    ),
    Pairs("a header again", images(rows(*FOUR) + "\npath,caption\n"), FOUR, {BAD: 1}),
    Pairs(
        "a table of Spark's",
        lambda folder: (
            images(pa.table({"path": ["0.jpg"], "caption": ["a"]}))(folder)
            | {"images": {"folder": str(folder), "captions": str(folder)}}
        ),
        refused=r"source: .*folder.*images\.captions",
    ),
    Pairs(
        "an index kept",
        images(
            pa.table(
                {
                    "path": [f"{i}.jpg" for i in range(4)],
                    "caption": FOUR,
                    "__index_level_0__": [1, 2, 3, 4],
                }
            )
        ),
        FOUR,
    ),
    Queries(
        "an index of pandas",
        card(listed(*TWO).replace("\n", "\n9,").replace("path", ",path").removesuffix("9,")),
        TWO,
    ),
    Queries(
        "an index kept",
        card(
            pa.table(
                {
                    "path": [f"{c}.jpg" for c in "abcd"],
                    "label": TWO,
                    "__index_level_0__": [1, 2, 3, 4],
                }
            )
        ),
        TWO,
    ),
    Queries(
        "Excel's semicolons",
        card("\ufeff" + listed(*TWO).replace(",", ";")),
        refused=r"t\.csv: .*separated by `;`",
    ),
    Queries(
        "a header again",
        card(listed(*TWO) + "path,label\n"),
        refused=r"t\.csv: line 6: repeats the header",
    ),
    Queries(
        "numbers that pandas made fractions",
        card(listed("0.0", "0.0", "1.0", "1.0"), classes={"a": "bird", "b": "tool"}),
        TWO,
    ),
    Queries(
        "numbers that pandas made fractions, unnamed",
        card(listed("0.0", "0.0", "1.0", "1.0")),
        refused=r"t\.csv: has no class names; give the card `classes`",
    ),
    Queries(
        "names with fractions",
        card(listed("v1.0", "v1.0", "1.5", "1.5")),
        ["1.5", "1.5", "v1.0", "v1.0"],
    ),
    Queries(
        "images of datasets",
        card(HF, source={"kind": "table", "file": "t.parquet", "path": "image"}),
        refused="column `image` is of type struct",
    ),
    Queries(
        "paths of Windows",
        card(listed(*TWO).replace("a.jpg", ".\\a.jpg")),
        TWO[1:],
        {".\\a.jpg": "no such file"},
    ),
    Queries("no rows", card("path,label\n"), refused=r"t\.csv: lists no test image"),
]

# Folders of clip-retrieval


def renamed(embeddings: str, rows: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        for i in (0, 1):
            (folder / f"img_emb/img_emb_{i}.npy").rename(folder / "img_emb" / embeddings.format(i))
            (folder / f"metadata/metadata_{i}.parquet").rename(folder / "metadata" / rows.format(i))

    return change


def more_columns(folder: Path) -> None:
    """As img2dataset and pandas leave them; the second file has others."""
    for i in (0, 1):
        known = pq.read_table(folder / f"metadata/metadata_{i}.parquet")
        more = {
            "key": [f"00000{i}"] * 2,
            "status": pa.array(["success"] * 2).dictionary_encode(),
            "width": pa.array([1, 2], pa.int64() if i else pa.float64()),
            "when": pa.array([datetime(2024, 1, 1)] * 2),
            "exif": ["{}", None] if i else pa.nulls(2),
            "tags": [["a"], []],
            "URL": ["x", "y"],
            "source": [1, 2],
            "offset": ["a", "b"],
        }
        for name, values in more.items():
            known = known.append_column(
                name, values if isinstance(values, pa.Array) else pa.array(values)
            )
        if i:
            known = known.append_column("__index_level_0__", pa.array([1, 2])).drop_columns(["key"])
        metadata(folder, i, known)


def extra_files(folder: Path) -> None:
    (folder / "img_emb/README.md").write_text("x")
    (folder / "img_emb/img_emb_0.npy.tmp").write_bytes(b"x")
    (folder / "metadata/_SUCCESS").write_bytes(b"")
    (folder / "index_infos.json").write_text("{}")
    (folder / "image.index").write_bytes(b"of other rows")


def file_in_no_utf_8(kind: str, ending: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = next((folder / kind).glob(f"*_1{ending}"))
        path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xe9_1" + ending.encode()))

    return change


FOLDERS = [
    Pairs(
        "five figures and one", embedded(renamed("img_emb_0000{}.npy", "metadata_{}.parquet")), FOUR
    ),
    Pairs("no figures", embedded(renamed("{}.npy", "rows-{}.parquet")), FOUR),
    Pairs("more columns", embedded(more_columns), FOUR),
    Pairs("more files", embedded(extra_files), FOUR),
    Pairs(
        "another array",
        embedded(lambda f: np.save(f / "img_emb/all.npy", unit(4, 3))),
        refused=r"3 files in img_emb but 2 in metadata",
    ),
    Pairs(
        "an array in no UTF-8",
        embedded(file_in_no_utf_8("img_emb", ".npy")),
        refused=r"img_emb: .*not UTF-8",
    ),
    Pairs(
        "metadata in no UTF-8",
        embedded(file_in_no_utf_8("metadata", ".parquet")),
        refused=r"metadata: .*not UTF-8",
    ),
    Pairs(
        "the other end first",
        embedded(lambda f: np.save(f / "img_emb/img_emb_1.npy", unit(2, 1).astype(">f4"))),
        FOUR,
    ),
    Pairs(
        "a folder as metadata",
        embedded(
            lambda f: [
                (f / "metadata/metadata_1.parquet").unlink(),
                (f / "metadata/metadata_1.parquet").mkdir(),
            ]
        ),
        refused=r"metadata_1\.parquet",
    ),
    Pairs("a link to a folder", moved(embedded(), through_a_link, "clip_retrieval"), FOUR),
    Pairs("read only", moved(embedded(), read_only, "clip_retrieval"), FOUR),
    Pairs("a folder named as a column", under("caption=blip", embedded()), FOUR),
    Pairs(
        "the same pairs again",
        embedded(lambda f: metadata(f, 1, pq.read_table(f / "metadata/metadata_0.parquet"))),
        FOUR[:2],
        {"same row twice": 2},
    ),
    Pairs(
        "neither URLs nor captions",
        embedded(
            lambda f: [
                metadata(f, i, pa.table({"url": pa.nulls(2), "caption": pa.nulls(2)}))
                for i in (0, 1)
            ]
        ),
        [""],
        {"same row twice": 3},
    ),
]

CASES: list[Pairs | Queries] = [*TARS, *LISTS, *TABLES, *FOLDERS]
