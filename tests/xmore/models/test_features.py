"""Images through worker processes: the same features, the same causes, nothing left behind."""

import logging
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xmore.files.digests import digest_file
from xmore.images.readers import Files, ListedImages, Tars
from xmore.models import decoding, features
from xmore.models.decoding import FEW, Decoded, Decoder
from xmore.models.features import decoder_of, encode_images, encode_parts
from xmore.models.loaded import load_encoder
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


def spans(images: ListedImages, size: int) -> list[ListedImages]:
    return [
        ListedImages(images.reader, images.names[i : i + size], images.hashes[i : i + size])
        for i in range(0, len(images), size)
    ]


def test_worker_processes_give_what_this_process_gives(encoder, images, monkeypatch):
    here = encode_images(images, encoder, *SIZES)
    assert here.rejected == REJECTED and here.kept == [i for i in range(30) if i not in REJECTED]
    monkeypatch.setattr(decoding, "FEW", 5)
    monkeypatch.setattr(decoding, "UNIT", 3)  # less than a batch
    there = encode_images(images, encoder, *SIZES)
    assert (there.kept, there.rejected) == (here.kept, here.rejected)
    np.testing.assert_array_equal(there.unit, here.unit)


def test_one_start_of_the_workers_serves_all_parts(encoder, images, monkeypatch):
    """Parts are cut from one stream, each as it is alone: the same rows, causes and last bits."""
    parts = spans(images, 7)
    alone = [encode_images(part, encoder, *SIZES) for part in parts]
    monkeypatch.setattr(decoding, "FEW", 5)
    pids, begun, found = set(), [], []

    def listed():
        for part in parts:
            begun.append(len(found))
            yield part

    for each in encode_parts(listed(), len(images), encoder, decoder_of(encoder, *SIZES)):
        pids.update(child.pid for child in multiprocessing.active_children())
        found.append(each)
    assert len(pids) == 2
    assert begun[:3] == [0, 0, 0], "what follows a part is decoded before it is there"
    assert not any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in pids)
    for one, other in zip(found, alone, strict=True):
        assert (one.kept, one.rejected) == (other.kept, other.rejected)
        np.testing.assert_array_equal(one.unit, other.unit)


def test_an_empty_part_and_one_without_any_image(encoder, images):
    parts = [*(spans(images, 3)[:1]), *(ListedImages(images.reader, n, n) for n in ([], ["a"], []))]
    found = list(encode_parts(parts, 4, encoder, decoder_of(encoder, *SIZES)))
    assert [each.kept for each in found] == [[0, 1, 2], [], [], []]
    assert [each.rejected for each in found] == [{}, {}, {0: "no such file"}, {}]
    assert list(encode_parts([], 0, encoder, decoder_of(encoder, *SIZES))) == []


@pytest.mark.parametrize("few", [5, FEW])
def test_a_part_that_cannot_be_read_is_raised_in_its_turn(encoder, images, monkeypatch, few):
    monkeypatch.setattr(decoding, "FEW", few)
    found = []

    def listed():
        yield from spans(images, 10)[:2]
        raise RuntimeError("the third")

    with pytest.raises(RuntimeError, match="the third"):
        for each in encode_parts(listed(), 30, encoder, decoder_of(encoder, *SIZES)):
            found.append(len(each.unit) + len(each.rejected))
    assert found == [10, 10]


def test_a_reader_is_sent_once_and_another_only_in_part(images):
    tars = Tars(Path("x"), {name: ("0.tar", i, 1) for i, name in enumerate(images.names)})
    other = [ListedImages(tars, part.names, part.hashes) for part in spans(images, 8)[2:]]
    ahead = decoding._Ahead([*spans(images, 8)[:2], *other], batch=4, unit=4)
    assert ahead.reader is images.reader
    units = list(ahead)
    assert [unit.images for unit in units[:4]] == [
        (images.names[i : i + 4], images.hashes[i : i + 4]) for i in range(0, 16, 4)
    ]
    assert [list(unit.images.reader.places) for unit in units[4:]] == [
        images.names[i : i + 4] for i in (16, 20, 24, 28)
    ]
    assert [unit.ends_part for unit in units] == [False, True] * 4


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda:1", True)])
def test_workers_hand_over_pinned_memory_to_a_gpu(encoder, images, monkeypatch, device, pinned):
    asked = []

    def loader(decoding, sampler, pin_memory, **_):
        asked.append(pin_memory)
        return (decoding[unit] for unit in sampler)

    monkeypatch.setattr(decoding, "DataLoader", loader)
    here = decoder_of(encoder, *SIZES)
    units = list(Decoder(here.to_pixels, 4, device=device)(spans(images, 7), len(images)))
    assert asked == [pinned] and sum(len(unit.kept) for unit in units) == 27
    pixels = SimpleNamespace(pin_memory=lambda: "pinned")
    assert Decoded(pixels, [], {}, True, True).pin_memory().pixels == "pinned"
    assert Decoded(None, [], {}, True, True).pin_memory().pixels is None


def test_a_gpu_has_batches_before_it_while_one_is_waited_for(encoder, images, monkeypatch):
    """Nothing waits for the copy back of a batch's features but what comes two batches later."""
    told = []

    class Gpu:
        device, by_core = "cuda", False
        normalise = staticmethod(lambda pixels: pixels)

        def in_parts(self, run, batch):
            return [run(batch)]

        def start_images(self, pixels):
            told.append("begins")
            return len(pixels)

        def rows(self, count):
            told.append("waits")
            return np.zeros((count, 2), np.float32)

    monkeypatch.setattr(features, "to_device", lambda parts, device: torch.cat(parts))
    found = list(encode_parts(spans(images, 15), 30, Gpu(), decoder_of(encoder, *SIZES)))
    assert [len(part.unit) for part in found] == [12, 15]  # eight batches of four, or three
    assert told == ["begins"] * 2 + ["begins", "waits"] * 6 + ["waits"] * 2


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def decoder(workers: int, device: str) -> Decoder:
    return Decoder(lambda image: image, 4, workers=workers, device=device)


def test_too_little_shared_memory_is_said_and_done_without(monkeypatch, caplog):
    monkeypatch.setattr(
        os, "statvfs", lambda _: os.statvfs_result((1, 1024, 9, 9, 9, 9, 9, 9, 0, 9))
    )
    with caplog.at_level(logging.WARNING):
        assert decoder(2, "cpu")._workers(FEW + 1) == 0
    assert "/dev/shm is too small for 2 decoding processes" in caplog.text


def test_how_many_workers(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert decoder(0, "cuda")._workers(FEW) == 0
    assert decoder(0, "cpu")._workers(FEW + 1) == 1
    assert decoder(0, "cuda:1")._workers(FEW + 1) == 7
    assert decoder(3, "cpu")._workers(FEW + 1) == 3


def test_units_are_small_however_large_the_batch():
    assert [Decoder(print, batch).unit for batch in (1, 64, 1024)] == [1, 64, 64]
    assert [Decoder(print, 4, views).unit for views in (8, 64, 100)] == [4, 1, 1]
