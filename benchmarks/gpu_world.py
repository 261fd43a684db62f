"""What `gpu.py` measures with: how much, on what, and where the figures go."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_whole import Inputs

from xmore.images.readers import Files, ListedImages
from xmore.models.batch_size import settled
from xmore.models.encoder import OpenClipEncoder
from xmore.models.loaded import load_encoder


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    images: int  # of the table
    queries: int  # of the whole benchmark
    classes: int
    rows: int  # of the memory
    searched: int  # queries of one search
    texts: int
    tuned: int  # images of TPT
    candidates: int
    captions: int
    seconds: float  # of bare passes
    tiny: bool = False  # towers of one narrow layer


FULL = Size(3072, 8192, 1000, 1_000_000, 1024, 4096, 16, 128, 16, 1.0)
SMALL = Size(12, 24, 4, 1000, 12, 32, 2, 8, 2, 0.0, tiny=True)


class Figures:
    """Prints figures, and keeps a file of them."""

    def __init__(self, path: Path, **facts: Any) -> None:
        self.path, self.facts, self.found = path, facts, []
        print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    def add(self, name: str, value: float, unit: str) -> None:
        """Print a figure, and write it to the file with all others."""
        self.found.append({"name": name, "value": value, "unit": unit})
        print(f"{name}: {value:,.4g} {unit}", flush=True)
        self.path.write_text(json.dumps(self.facts | {"figures": self.found}, indent=1))


@dataclass(frozen=True)
class World:
    """What is measured on."""

    size: Size
    device: str
    inputs: Inputs
    figures: Figures

    @property
    def workers(self) -> int:
        """Processes that decode: of all cores but one, at most 16, as a run on a GPU has."""
        return max(1, min(16, (os.cpu_count() or 1) - 1))

    def encoder(self, name: str, precision: str) -> OpenClipEncoder:
        """Return a model in a precision, loaded."""
        return load_encoder(self.inputs.model(name, precision), self.device)

    def batch(self, name: str, precision: str) -> int:
        """Return the batch size that a run settles on; a small one has fewer images."""
        wanted = settled("auto", [self.inputs.model(name, precision)], self.device)
        return min(wanted, self.size.images)

    def source(self, count: int) -> tuple[ListedImages, int]:
        """Return the first images, and their number."""
        names = self.inputs.images[:count]
        return ListedImages(Files(self.inputs.folder / "images"), names, [None] * count), count

    def rate(self, name: str, count: int, work: Callable[[], Any]) -> None:
        """Add how many of `count` a second `work` does."""
        _, seconds = self.timed(work)
        self.figures.add(name, count / seconds, "a second")

    def timed(self, work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        """Return the result of `work`, and its seconds until the device has done all."""
        self.wait()
        begun = time.perf_counter()
        result = work(*args)
        self.wait()
        return result, time.perf_counter() - begun

    def bare(self, name: str, count: int, work: Callable[[], Any]) -> None:
        """Add how many a second repeated passes of `count` inputs do; the first is not counted."""
        with torch.inference_mode():
            work()
            _, once = self.timed(work)
            passes = max(1, int(self.size.seconds / once))
            begun = time.perf_counter()
            for _ in range(passes):
                work()
            self.wait()
        self.figures.add(name, passes * count / (time.perf_counter() - begun), "a second")

    def wait(self) -> None:
        """Wait for the device."""
        if self.device != "cpu":
            torch.cuda.synchronize()
