"""The batch size that the config leaves open."""

import pytest
import torch

from xmore.models import batch_size
from xmore.models.batch_size import bytes_of_input, fitting, settled
from xmore.models.spec import ModelCard, ModelSpec

GB = 1 << 30


def card(name, precision="fp32", **preprocess):
    spec = ModelSpec(architecture=name, pretrained="x")
    return ModelCard("m", spec, {"preprocess": preprocess, "precision": precision})


def test_a_cpu_has_the_batch_that_it_always_had(monkeypatch):
    assert settled("auto", [card("RN50")], "cpu") == 64
    assert settled(7, [card("RN50")], "cuda") == 7


@pytest.mark.parametrize(
    ("memory", "input_bytes", "size"),
    [(40 * GB, 602_112, 1024), (12 * GB, 602_112, 256), (6 * GB, 301_056, 256),
     (500 * GB, 602_112, 1024), (1000, 602_112, 1)],
)  # fmt: skip
def test_a_power_of_two_that_fits(memory, input_bytes, size):
    assert fitting(memory, input_bytes) == size


def test_the_largest_input_counts_and_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(batch_size, "device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (24 * GB, 80 * GB))
    small, large = card("ViT-B-32", "fp16"), card("ViT-L-14-336")
    assert [bytes_of_input(c) for c in (small, large)] == [2 * 3 * 224**2, 4 * 3 * 336**2]
    assert bytes_of_input(card("RN50", size=448)) == 4 * 3 * 448**2
    assert settled("auto", [small], "auto") == 512
    assert settled("auto", [small, large], "cuda:1") == 128
