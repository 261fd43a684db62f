"""The device that models run on, by its name; torch is imported only where it is needed."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path

from xmore.files.errors import LockedError, ModelError
from xmore.files.imports import load_first
from xmore.files.locks import locked

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Windows' Linux


@cache
def device_name(wanted: str) -> str:
    """Return `cpu` or a GPU's name for `execution.device`; an absent GPU is reported elsewhere."""
    if wanted == "auto" and not any(Path(driver).exists() for driver in DRIVERS):
        return "cpu"
    if wanted != "auto" and not wanted.startswith("cuda"):
        return wanted
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return torch.cuda.get_device_name("cuda" if wanted == "auto" else wanted)


def all_devices() -> list[str]:
    """Return every GPU that torch sees, or the CPU if it sees none."""
    if device_name("auto") == "cpu":
        return ["cpu"]
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def pick_device(wanted: str, among_others: bool = False) -> str:
    """Resolve `auto` to cuda if present, else cpu. Raises ModelError if the device is absent.

    With `among_others`, as for a cluster's workers, `auto` and `cuda` are a GPU of this process's
    own.
    """
    if wanted != "auto" and not wanted.startswith("cuda"):
        return wanted
    load_first("torch")
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cpu" and not torch.cuda.is_available():
        raise ModelError(f"execution.device is `{wanted}` but torch sees no GPU. Use `auto`.")
    if wanted == "cuda" and among_others:
        return own_gpu(torch.cuda.device_count())
    return wanted


_held = ExitStack()  # locks that this process keeps until it ends


@cache
def own_gpu(gpus: int) -> str:
    """Return this process's own of a machine's GPUs: another one than other processes that ask.

    If there are more processes than GPUs, they share them evenly.
    """
    folder = Path(tempfile.gettempdir()) / f"xmore-gpus-{os.getuid()}"
    for number in count():
        try:
            _held.enter_context(locked(folder / f"{number}.lock", refuse="taken"))
        except LockedError:
            continue
        return f"cuda:{number % gpus}"
    raise AssertionError
