"""Images through worker processes: the same features, the same causes, nothing left behind."""

import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from xmore.files.digests import digest_file
from xmore.images.readers import Files, ListedImages
from xmore.models import features
from xmore.models.encoder import load_encoder
from xmore.models.features import encode_images
from xmore.models.spec import describe_model


@pytest.fixture(scope="module")
def encoder(world):
    spec = world.memory_config().model
    return load_encoder(describe_model("lite0-pooled", spec, world.root / "cache"), "cpu")


@pytest.fixture
def images(world, tmp_path) -> ListedImages:
    """30 drawings; number 3 is no image, number 8 has changed, number 11 is gone."""
    folder = world.images
    names = []
    for number, path in enumerate(sorted(folder.iterdir())[:30]):
        names.append(f"{number:02d}.jpg")
        (tmp_path / names[-1]).write_bytes(b"?" if number == 3 else path.read_bytes())
    hashes = [digest_file(tmp_path / name) for name in names]
    hashes[8] = "0" * 64
    (tmp_path / names[11]).unlink()
    return ListedImages(Files(tmp_path), names, hashes)


SIZES = 4, 2  # of a batch, worker processes
REJECTED = {3: "not an image", 8: "changed since it was listed", 11: "no such file"}


def test_worker_processes_give_what_this_process_gives(encoder, images, monkeypatch):
    here = encode_images(images, encoder, *SIZES)
    assert here.rejected == REJECTED and here.kept == [i for i in range(30) if i not in REJECTED]
    monkeypatch.setattr(features, "FEW", 5)
    pids = set()
    decode = features.image_batches

    def watch(*arguments):
        for batch in decode(*arguments):
            pids.update(child.pid for child in multiprocessing.active_children())
            yield batch

    monkeypatch.setattr(features, "image_batches", watch)
    there = encode_images(images, encoder, *SIZES)
    assert len(pids) == 2
    assert (there.kept, there.rejected) == (here.kept, here.rejected)
    np.testing.assert_array_equal(there.unit, here.unit)
    assert not any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in pids)


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_too_little_shared_memory_is_said_and_done_without(encoder, images, monkeypatch, caplog):
    monkeypatch.setattr(features, "FEW", 5)
    monkeypatch.setattr(
        os, "statvfs", lambda _: os.statvfs_result((1, 1024, 9, 9, 9, 9, 9, 9, 0, 9))
    )
    with caplog.at_level(logging.WARNING):
        assert features._worker_count(30, *SIZES, "cpu") == 0
    assert "/dev/shm is too small for 2 decoding processes" in caplog.text


def test_how_many_workers(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    many = features.FEW + 1
    assert features._worker_count(features.FEW, 64, 0, "cuda") == 0
    assert features._worker_count(many, 64, 0, "cpu") == 1
    assert features._worker_count(many, 64, 0, "cuda") == 7
    assert features._worker_count(many, 64, 3, "cpu") == 3
