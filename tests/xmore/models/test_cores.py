"""Passes of a CPU, a core each: the same features, in their order, and nothing else slower."""

import threading
import time

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from threads import threads

from xmore.images.readers import Files, ListedImages
from xmore.models import cores
from xmore.models.cores import EACH, INPUTS, Cores
from xmore.models.encoder import OpenClipEncoder
from xmore.models.features import encode_images
from xmore.models.spec import ModelSpec, describe_model

FULL = 2 * EACH * INPUTS  # images that keep two cores busy


@pytest.fixture(autouse=True)
def two_cores():
    with threads(2):
        yield


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> OpenClipEncoder:
    """CLIP's own transformer, at random weights."""
    folder = tmp_path_factory.mktemp("tower")
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-S-32-alt").state_dict(), folder / "weights.safetensors")
    spec = ModelSpec(architecture="ViT-S-32-alt", checkpoint=folder / "weights.safetensors")
    return OpenClipEncoder(describe_model("vit", spec, folder), "cpu")


@pytest.fixture
def images(tmp_path) -> ListedImages:
    """FULL + 9 colours; number 5 is no image."""
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(FULL + 9)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / names[5]).write_bytes(b"?")
    return ListedImages(Files(tmp_path), names, [None] * len(names))


def passes(monkeypatch, tower: OpenClipEncoder) -> list[tuple[int, int]]:
    """The inputs of each pass, and the threads that compute it, as they begin."""
    told, start = [], tower.start_images

    def counted(pixels):
        told.append((len(pixels), torch.get_num_threads()))
        return start(pixels)

    monkeypatch.setattr(tower, "start_images", counted)
    return told


@pytest.mark.parametrize("batch", [24, 64])
def test_features_are_those_of_passes_that_all_cores_share(tower, images, monkeypatch, batch):
    told = passes(monkeypatch, tower)
    by_core = encode_images(images, tower, batch)
    assert {count for _, count in told} == {1}
    assert all(size < 2 * INPUTS for size, _ in told)
    told.clear()
    monkeypatch.setattr(OpenClipEncoder, "by_core", False)
    shared = encode_images(images, tower, batch)
    assert {count for _, count in told} == {2}
    assert by_core.kept == shared.kept and by_core.rejected == shared.rejected
    np.testing.assert_array_equal(by_core.unit, shared.unit)


def test_few_images_are_shared_by_all_cores(tower, images, monkeypatch):
    told = passes(monkeypatch, tower)
    some = ListedImages(images.reader, images.names[: FULL - 1], images.hashes[: FULL - 1])
    encode_images(some, tower, 64)
    assert told == [(FULL - 2, 2)]  # one is no image
    with threads(1):
        encode_images(images, tower, 64)
    assert {count for _, count in told[1:]} == {1} and max(told[1:])[0] > 2 * INPUTS


def test_threads_that_start_later_have_all_cores(tower, images):
    encode_images(images, tower, 64)
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert (found, torch.get_num_threads()) == ([2], 2)
    assert not [each for each in threading.enumerate() if each.name.startswith("core")]


def test_what_fails_on_a_core_is_raised_and_the_rest_not_begun():
    begun = []

    def run(inputs):
        begun.append(len(inputs))
        time.sleep(0.1 * len(begun[1:]))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Cores() as both:
        both.begin(run, torch.zeros(20 * INPUTS))[0]()
    assert 0 < len(begun) < 10


def test_as_many_batches_are_in_flight_as_keep_the_cores_busy():
    both = Cores()
    assert [both.in_flight(batch) for batch in (4, 64, 256)] == [16, 1, 1]
    assert [both.would_be_busy(n) for n in (FULL - 1, FULL)] == [False, True]


def test_a_batch_is_cut_evenly():
    with Cores() as both:
        sizes = [
            [len(each()) for each in both.begin(lambda part: part.numpy, torch.zeros(n))]
            for n in (1, 31, 32, 40, 64)
        ]
    assert sizes == [[1], [31], [16, 16], [20, 20], [16] * 4]
    assert cores.INPUTS == 16
