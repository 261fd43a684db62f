"""The shipped demo: its URL list names its images, and some rows that are bad on purpose."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from flows.cli.demo_server import FOLDER, PORT


def test_the_url_list_names_the_shipped_images_and_captions():
    rows = pq.read_table(FOLDER / "urls.parquet").to_pylist()
    pairs = pq.read_table(FOLDER / "captions.parquet").to_pylist()
    named = [(Path(unquote(urlsplit(row["URL"]).path)).name, row["TEXT"]) for row in rows]
    assert named[: len(pairs)] == [(pair["path"], pair["caption"]) for pair in pairs]
    for row in rows[: len(pairs)]:
        url = urlsplit(row["URL"])
        assert (url.scheme, url.netloc) == ("http", f"127.0.0.1:{PORT}")
        assert (FOLDER / unquote(url.path)[1:]).is_file() and row["WIDTH"] and row["HEIGHT"]
    bad = [row["URL"].replace(f"http://127.0.0.1:{PORT}", "") for row in rows[len(pairs) :]]
    assert bad[:6] == [
        "/images/gone-1.jpg",
        "/images/gone-2.jpg",
        "/images/gone-3.jpg",
        "/bad/page.jpg",
        "/bad/truncated.jpg",
        "/bad/bomb.png",
    ]
    assert list(rows[0]) == [
        "SAMPLE_ID", "URL", "TEXT", "LICENSE", "NSFW", "similarity", "WIDTH", "HEIGHT",
    ]  # fmt: skip
