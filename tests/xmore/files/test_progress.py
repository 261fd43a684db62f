"""Progress: by unit, with rate and time left; without a terminal as lines."""

import time
from types import SimpleNamespace

import pytest
from PIL import Image

from xmore.files import progress
from xmore.files.progress import advance, counting, listener, track, working
from xmore.images.readers import Files, ListedImages


@pytest.fixture
def told():
    """What the listener was told: units done, and their total."""
    found = []
    token = listener.set(lambda text, done, total: found.append((done, total)))
    yield found
    listener.reset(token)


def test_an_item_is_counted_unit_by_unit_and_not_beyond_its_end(told):
    for _ in track(["a", "b"], "work", "image", sizes=[3, 2]):
        advance(2)
        advance(2)
    assert told == [(2, 5), (3, 5), (5, 5)]


def test_items_without_sizes_are_counted_one_by_one(told):
    for _ in track(["a", "b"], "work", "part"):
        advance(5)
    assert told == [(1, 2), (2, 2)]
    advance(1)  # nothing is open


def test_images_count_as_they_are_encoded(told, tmp_path):
    import torch

    from xmore.models.features import encode_images

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    encoder = SimpleNamespace(
        device="cpu",
        by_core=False,
        resize=lambda image: image,
        normalise=lambda pixels: pixels,
        in_parts=lambda run, batch: [run(batch)],
        start_images=lambda pixels: torch.zeros(len(pixels), 1).numpy,
        rows=lambda coming: coming(),
    )
    source = ListedImages(Files(tmp_path), ["a.png"] * 5, [None] * 5)
    for _ in track(["a part"], "work", "row", sizes=[5]):
        encode_images(source, encoder, batch_size=2)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_without_a_terminal_there_are_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    with working("xmore-reindex"), counting("embedding", 8000, "image") as done:
        done(1000)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert all(line.startswith("embedding: 1,000 of 8,000 images, ") for line in lines)
    assert all(" per second, " in line and line.endswith(" left") for line in lines)
    with working("xmore-reindex"):
        time.sleep(0.2)
    assert capsys.readouterr().err.startswith("xmore-reindex: 0 s so far")
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_time_left_is_in_units_that_people_read():
    told = [progress.duration(s) for s in (59.6, 600, 7200)]
    assert told == ["60 s", "10 min", "2.0 h"]
