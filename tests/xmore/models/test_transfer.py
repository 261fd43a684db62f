"""Copies to a GPU and back, on a stand-in for one: what waits for what, and what does not."""

from contextlib import contextmanager

import pytest
import torch

from xmore.models import transfer
from xmore.models.transfer import to_device, to_host


def test_on_a_cpu_nothing_is_copied():
    one = torch.arange(6).view(3, 2)
    assert to_device([one], "cpu") is one
    assert torch.equal(to_device([one, one[:1]], "cpu"), torch.cat([one, one[:1]]))
    assert to_host(one.float(), "cpu")().tolist() == one.tolist()


@pytest.fixture
def gpu(monkeypatch):
    """What happens on a GPU, in order; its memory is this process's."""
    told, here = [], ["computing"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            told.append(f"{self.name} waits for {other.name}")

    class Event:
        def record(self, stream):
            told.append(f"event of {stream.name}")

        def synchronize(self):
            told.append("the process waits")

    @contextmanager
    def on(stream):
        here.append(stream.name)
        yield
        here.pop()

    def to(self, device, non_blocking):
        told.append(f"to {device} by {here[-1]}, {non_blocking}")
        return self.clone()

    def copy(self, other, non_blocking):
        told.append(f"back by {here[-1]}, {non_blocking}")
        return self.set_(other)

    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("computing"))
    monkeypatch.setattr(transfer, "_copying", lambda _: Stream("copying"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    used = lambda self, stream: told.append(f"kept for {stream.name}")  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "record_stream", used)
    pinned = lambda shape, dtype, pin_memory: empty(shape, dtype=dtype)  # noqa: E731
    monkeypatch.setattr(torch, "empty", pinned)
    return told


def test_pixels_are_copied_beside_the_computing_which_waits_for_them(gpu):
    parts = [torch.arange(4), torch.arange(2)]
    assert to_device(parts, "cuda").tolist() == [0, 1, 2, 3, 0, 1]
    assert gpu == [
        "to cuda by copying, True",
        "to cuda by copying, True",
        "computing waits for copying",
        "kept for computing",
        "kept for computing",
    ]


def test_features_come_back_without_anyone_waiting_until_they_are_used(gpu):
    coming = to_host(torch.ones(2, 3), "cuda:1")
    assert gpu == ["back by computing, True", "event of computing"]
    assert coming().tolist() == [[1] * 3] * 2
    assert gpu[2:] == ["the process waits"]
