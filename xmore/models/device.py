"""The device that models run on, by its name; torch is imported only where there may be a GPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path

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
