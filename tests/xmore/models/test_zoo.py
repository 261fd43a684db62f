"""open_clip's lists, read without the rest of it, are those that it has itself."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import open_clip
import pytest
from huggingface_hub.utils import reset_sessions

from xmore.files.errors import ModelError
from xmore.models import zoo


def test_the_tags_are_open_clips():
    ours = zoo.pretrained()
    pairs = open_clip.list_pretrained()
    assert ours is not open_clip.pretrained and ours.list_pretrained() == pairs
    for architecture, tag in pairs:
        theirs = open_clip.get_pretrained_cfg(architecture, tag)
        assert ours.get_pretrained_cfg(architecture, tag) == theirs


def test_the_architectures_are_open_clips(monkeypatch):
    theirs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    monkeypatch.delitem(sys.modules, "open_clip")
    for name in (path.stem for path in HERE.glob("model_configs/*.json")):
        assert zoo.architecture_config("m", name) == theirs[name], name
    for name in ("RN-50", "../RN50", ""):
        with pytest.raises(ModelError, match="no architecture"):
            zoo.architecture_config("m", name)


HERE = Path(open_clip.__file__).parent
MISSPELT = """
import sys
from pathlib import Path
from xmore.files.errors import ModelError
from xmore.models.spec import ModelSpec, describe_model

try:
    describe_model("m", ModelSpec(architecture="RN50", pretrained="openia"), Path())
except ModelError as error:
    print(error, {"torch", "open_clip", "transformers"} & {*sys.modules})
"""


def test_a_misspelt_tag_is_told_before_anything_slow_is_imported():
    said = subprocess.run([sys.executable, "-c", MISSPELT], capture_output=True, text=True).stdout
    assert "no pretrained tag `openia` for RN50. Did you mean `openai`? Available: openai, " in said
    assert said.endswith(". set()\n"), said


class Hub(BaseHTTPRequestHandler):
    """One repository with one file, as the hub serves it."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.asked.append(f"{self.command} {self.path}")
        found = self.path in ("/", "/org/tiny/resolve/main/open_clip_model.safetensors")
        self.send_response(200 if found else 404)
        for name, value in {"ETag": "e", "X-Repo-Commit": "c", "Content-Length": "7"}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(b"weights")

    def log_message(self, *_):
        pass


@pytest.fixture
def download(monkeypatch, tmp_path):
    """What downloads from a hub at an address; the hub has not been asked yet."""

    def from_hub(address):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        return zoo.pretrained().download_pretrained_from_hf("org/tiny", cache_dir=tmp_path)

    monkeypatch.setattr(zoo, "_failed", [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as all tests are
    reset_sessions()
    yield from_hub
    reset_sessions()


def test_a_file_of_the_hub_is_asked_for_once(download):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        first = download(address)
        assert Path(first).read_bytes() == b"weights" and Hub.asked
        Hub.asked.clear()
        assert download(address) == first and Hub.asked == []
        server.shutdown()
    assert download(address) == first  # nobody is there any more


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(download):
    with pytest.raises(FileNotFoundError, match=r"127\.0\.0\.1:9 cannot be reached"):
        download("http://127.0.0.1:9")
