"""How many inputs a forward pass has, where the config leaves it open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from xmore.models.device import device_name
from xmore.models.spec import IN_2_BYTES, ModelCard, architecture_config

ON_CPU = 64
MOST = 1024  # more is not faster
WIDEST = 64  # what a tower keeps of an image, as a multiple of its input: more than any of CLIP's


def settled(wanted: int | Literal["auto"], models: Iterable[ModelCard], device: str) -> int:
    """Return the batch size of `execution.batch_size` for models on a device.

    `auto` is ON_CPU on a CPU. On a GPU it is the largest power of two up to MOST with which the
    largest of the models takes at most half of the memory that is free now.
    """
    if wanted != "auto":
        return wanted
    if device_name(device) == "cpu":
        return ON_CPU
    import torch

    free, _ = torch.cuda.mem_get_info("cuda" if device == "auto" else device)
    return fitting(free // 2, max(map(bytes_of_input, models)))


def fitting(memory: int, input_bytes: int) -> int:
    """Return the largest power of two, 1 to MOST, whose inputs take at most `memory` bytes."""
    most = max(1, min(MOST, memory // (WIDEST * input_bytes)))
    return 1 << (most.bit_length() - 1)


def bytes_of_input(model: ModelCard) -> int:
    """Return the bytes of an image as the image tower is given it."""
    size = model.identity["preprocess"].get("size")
    size = size or architecture_config(model)["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    return 3 * height * width * (2 if model.precision in IN_2_BYTES else 4)
