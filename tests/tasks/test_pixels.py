"""Images that were listed and cannot be used later."""

import hashlib

import yaml

from xmore.images.decode import DAMAGED, ImageRejected
from xmore.models import decoding
from xmore.results.runs import load_run
from xmore.results.views import open_views


def test_an_image_that_fails_only_at_decoding_is_rejected_by_the_next_run(
    world, xmore, tmp_path, monkeypatch
):
    bad = sorted((world.root / "queries").rglob("*.jpg"))[3]
    sha256, decode = hashlib.sha256(bad.read_bytes()).hexdigest(), decoding.decode_image

    def refuse(data: bytes):
        if hashlib.sha256(data).hexdigest() == sha256:
            raise ImageRejected(DAMAGED)
        return decode(data)

    monkeypatch.setattr(decoding, "decode_image", refuse)
    changes = {"adjustments": ["none"], "max_rejected": 0.1}
    config = world.config(tmp_path / "results", **changes).model_dump(mode="json")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    first = xmore("benchmark", path)
    assert first.returncode == 2 and len(first.stderr.strip().splitlines()) == 1
    assert bad.name in first.stderr and "Run the same command again" in first.stderr
    assert xmore("benchmark", path).returncode == 0
    db = open_views(load_run(tmp_path / "results", "latest"))
    uri = bad.relative_to(world.root / "queries").as_posix()
    assert db.execute("select uri, cause from rejected").fetchall() == [(uri, DAMAGED)]
    assert db.execute("select count(*) from queries").fetchone() == (19,)
