"""Getting a dataset: only when asked to, whole files only."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from sharing import redirecting

from xmore.datasets import obtain
from xmore.datasets.card import load_card
from xmore.datasets.scan import scan
from xmore.files.errors import DatasetError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def remote(tiny_webdataset):
    """The tiny webdataset behind HTTP; yields its URL."""
    handler = functools.partial(Quiet, directory=tiny_webdataset)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def card(tmp_path, url: str):
    source = {"kind": "webdataset", "url": url}
    data = {"name": "remote", "root": "here", "source": source}
    (tmp_path / "remote.yaml").write_text(yaml.safe_dump(data))
    return load_card(str(tmp_path / "remote.yaml"))


def test_a_remote_webdataset_comes_whole(remote, tiny_webdataset, tmp_path, monkeypatch):
    found = card(tmp_path, remote)
    with pytest.raises(DatasetError, match="no folder"):  # nothing comes unasked
        scan(found, tmp_path / "cache", 0)
    obtain.get(found)
    here = {p.relative_to(found.root): p.read_bytes() for p in found.root.rglob("*.*")}
    there = {p.relative_to(tiny_webdataset): p.read_bytes() for p in tiny_webdataset.rglob("*.*")}
    there.pop(next(path for path in there if "templates" in path.name))
    assert here == there
    assert len(scan(found, tmp_path / "cache", 0).queries) == 20
    asked = []
    fetch = obtain._fetch
    monkeypatch.setattr(obtain, "_fetch", lambda *a: (asked.append(a[0]), fetch(*a)))
    (found.root / "test" / "1.tar").unlink()
    obtain.get(found)
    assert [url for url in asked if url.endswith(".tar")] == [f"{remote}/test/1.tar"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc", "must be http or https"),
        ("http://127.0.0.1:9", "could not be downloaded"),
        ("{remote}/nowhere", "404"),
    ],
)
def test_what_cannot_be_got_is_one_line_and_leaves_nothing(remote, tmp_path, url, says):
    found = card(tmp_path, url.format(remote=remote))
    with pytest.raises(DatasetError, match=says):
        obtain.get(found)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".yaml"]


class Short(Quiet):
    """Announces more bytes than it sends."""

    def send_header(self, keyword: str, value: str) -> None:
        longer = keyword == "Content-Length"
        super().send_header(keyword, str(int(value) + 1) if longer else value)


def test_what_is_cut_short_is_not_taken_for_whole(tiny_webdataset, tmp_path):
    handler = functools.partial(Short, directory=tiny_webdataset)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = card(tmp_path, f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(DatasetError, match="could not be downloaded"):
        obtain.get(found)
    server.shutdown()
    server.server_close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".yaml"]


def test_a_cards_server_leads_to_nothing_else_on_this_machine(remote, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Quiet, "do_GET", lambda self: asked.append(self.path))
    target = f"{remote}/test/nshards.txt"
    with redirecting(target) as server, pytest.raises(DatasetError, match="private address"):
        obtain.get(card(tmp_path, server))
    assert not asked and not list(tmp_path.rglob("*.txt"))
