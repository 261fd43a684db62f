"""Copies to a GPU and back that no process waits for: pinned memory, and a stream of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Coming:
    """Rows that the device may still be computing, and copying to this memory."""

    rows: torch.Tensor  # (n, D) float32, on the CPU once `ready`
    ready: Any = None  # a torch.cuda.Event; None if they are there

    def wait(self) -> np.ndarray:
        """Return them once they are there: (n, D) float32."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.rows.numpy()


def to_device(parts: Sequence[torch.Tensor], device: str) -> torch.Tensor:
    """Return the concatenation of (n, ...) tensors on a device.

    From pinned memory, a GPU copies them while it computes what it was given before.
    """
    if device == "cpu":
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    computing, copying = torch.cuda.current_stream(device), _copying(device)
    with torch.cuda.stream(copying):
        there = [part.to(device, non_blocking=True) for part in parts]
    computing.wait_stream(copying)
    for part in there:
        part.record_stream(computing)  # or its memory could be given away before it is read
    return there[0] if len(there) == 1 else torch.cat(there)


def to_host(rows: torch.Tensor, device: str) -> Coming:
    """Begin to copy (n, D) rows of a device to this process."""
    if device == "cpu":
        return Coming(rows)
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    host.copy_(rows, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(device))
    return Coming(host, ready)


@cache
def _copying(device: str) -> Any:
    return torch.cuda.Stream(device)
