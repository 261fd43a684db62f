"""Copies to a GPU and back that no process waits for: pinned memory, and a stream of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

Coming = Callable[[], np.ndarray]
"""Waits for rows that are still being computed or copied; returns them: (n, D) float32."""


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
    """Begin to copy (n, D) float32 rows of a device to this process."""
    if device == "cpu":
        return rows.numpy
    host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    host.copy_(rows, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))

    def wait() -> np.ndarray:
        copied.synchronize()
        return host.numpy()

    return wait


@cache
def _copying(device: str) -> Any:
    return torch.cuda.Stream(device)
