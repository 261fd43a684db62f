"""Images decoded in worker processes, ahead of their use and over the borders of parts.

A worker imports this module and what the model's resizing needs, but no model.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from xmore.images.decode import ImageRejected, decode_image
from xmore.images.readers import ImageReader, ListedImages

log = logging.getLogger(__name__)

FEW = 512  # for this many images, starting worker processes takes longer than decoding
AHEAD = 2  # units that each worker decodes in advance
UNIT = 64  # model inputs that a worker hands over at a time

ToPixels = Callable[[Image.Image], torch.Tensor]
"""A decoded image -> uint8: (H, W, 3), the model's input, or (V, H, W, 3), its augmented views."""


@dataclass(frozen=True)
class Decoded:
    """Some adjacent images of a part, decoded: a batch, or a unit of one."""

    pixels: torch.Tensor | None  # (n, ...) uint8 from `to_pixels`; None if all were rejected
    kept: list[int]  # their positions in the part
    rejected: dict[int, str]  # position -> cause
    ends_batch: bool
    ends_part: bool

    def pin_memory(self) -> Decoded:
        """Return it in pinned memory, from which a GPU copies by itself; torch calls this."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class Decoder:
    """How images are decoded: into what, how many at a time, by how many processes."""

    to_pixels: ToPixels
    batch: int  # images; a batch never has those of two parts
    views: int = 1  # model inputs of each image
    workers: int = 0  # processes; 0 chooses the number
    device: str = "cpu"

    @property
    def unit(self) -> int:
        """How many images a worker hands over at a time."""
        return max(1, min(self.batch, UNIT // self.views))

    def __call__(self, parts: Iterable[ListedImages], count: int) -> Iterator[Decoded]:
        """Yield the images of parts, which are `count` in all, unit by unit, in their order.

        The processes are started once. They decode ahead, so parts are read ahead, too; an error in
        reading one is raised after all units of those before. An empty part has one empty unit.
        Memory: AHEAD units per worker.
        """
        ahead = _Ahead(parts, self.batch, self.unit)
        units, here = iter(ahead), _Decoding(ahead.reader, self.to_pixels)
        workers = self._workers(count)
        options: dict[str, Any] = {}
        begun: list[Decoded] = []
        if workers:
            options = {"multiprocessing_context": server(self.to_pixels)}
            options["prefetch_factor"] = AHEAD
            # The first batch is decoded here, so that the model need not wait for their start.
            begun = [here[unit] for unit in _batch(units)]
        loader = DataLoader(
            here,
            sampler=units,  # type: ignore[arg-type]  # torch only iterates over it
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # without batches, it has one item
            pin_memory=self.device != "cpu",
            **options,
        )
        coming = iter(loader)
        yield from begun
        yield from coming
        if ahead.error is not None:
            raise ahead.error

    def _workers(self, count: int) -> int:
        """Return the number of processes; 0 means this process (few images, or no memory)."""
        if count * self.views <= FEW:
            return 0
        cores = os.cpu_count() or 1
        # A model on the CPU needs the cores itself; one decoding process keeps up with it.
        chosen = 1 if self.device == "cpu" else max(1, min(16, cores - 1))
        workers = self.workers or chosen
        needed = workers * (AHEAD + 1) * self.unit * self.views * 3 * 336**2
        try:
            stat = os.statvfs("/dev/shm")
        except OSError:  # not Linux, where shared memory is a folder
            return workers
        if stat.f_bavail * stat.f_frsize < needed:
            log.warning(
                "/dev/shm is too small for %d decoding processes (%d MB needed): decoding in this "
                "one. Give the container more shared memory, or lower execution.workers.",
                workers,
                needed >> 20,
            )
            return 0
        return workers


@dataclass(frozen=True)
class Resized:
    """A model's own resizing, as `ToPixels`."""

    resize: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(self.resize(image)))


@dataclass(frozen=True)
class _Unit:
    """What a worker decodes at a time."""

    images: ListedImages | tuple[list[str], list[str | None]]  # without the reader that it has
    first: int  # position in the part
    ends_batch: bool
    ends_part: bool


@dataclass
class _Ahead:
    """The units of parts. Names and hashes are sent to workers; a reader only if it changes."""

    parts: Iterable[ListedImages]
    batch: int
    unit: int
    error: Exception | None = None
    reader: ImageReader | None = field(init=False, default=None)  # of the first part

    def __post_init__(self) -> None:
        self._parts = iter(self.parts)
        self._begun = [part] if (part := self._next()) is not None else []
        self.reader = self._begun[0].reader if self._begun else None

    def __iter__(self) -> Iterator[_Unit]:
        while (part := self._begun.pop() if self._begun else self._next()) is not None:
            for start in range(0, max(1, len(part)), self.batch):
                stop = min(start + self.batch, len(part))
                for first in range(start, max(start + 1, stop), self.unit):
                    last = min(first + self.unit, stop)
                    images = self._sent(part, first, last)
                    yield _Unit(images, first, last == stop, last == len(part))

    def _next(self) -> ListedImages | None:
        try:
            return next(self._parts, None)
        except Exception as error:  # raised in its turn: what comes before is still good
            self.error = error
            return None

    def _sent(
        self, part: ListedImages, first: int, last: int
    ) -> ListedImages | tuple[list[str], list[str | None]]:
        names, hashes = part.names[first:last], list(part.hashes[first:last])
        if part.reader is self.reader:
            return names, hashes
        return ListedImages(part.reader.only(names), names, hashes)


@dataclass(frozen=True)
class _Decoding(Dataset):
    """Units -> `Decoded`, as a torch dataset."""

    reader: ImageReader | None
    to_pixels: ToPixels

    def __getitem__(self, unit: _Unit) -> Decoded:
        images = unit.images
        if isinstance(images, tuple):
            images = ListedImages(self.reader, *images)  # type: ignore[arg-type]
        good, kept, rejected = [], [], {}
        for i in range(len(images)):
            try:
                good.append(self.to_pixels(decode_image(images.read(i))))
                kept.append(unit.first + i)
            except ImageRejected as error:
                rejected[unit.first + i] = error.cause
        pixels = torch.stack(good) if good else None
        return Decoded(pixels, kept, rejected, unit.ends_batch, unit.ends_part)


def _batch(units: Iterator[_Unit]) -> Iterator[_Unit]:
    """Yield the units up to the end of a batch."""
    for unit in units:
        yield unit
        if unit.ends_batch:
            return


def _as_it_is(unit: Decoded) -> Decoded:
    return unit


def server(to_pixels: ToPixels) -> BaseContext:
    """Return a context that forks workers from a clean server process.

    If they were forked from this process, locks held by its threads would stay locked in the fork.
    """
    steps = getattr(getattr(to_pixels, "resize", None), "transforms", [to_pixels])
    return start_server(tuple(sorted({type(step).__module__ for step in steps})))


def prepare(count: int) -> None:
    """Start the server, if so many images need it, while the caller loads a model."""
    if count > FEW:
        start_server(("torchvision.transforms.transforms",))


@cache
def start_server(needed: tuple[str, ...]) -> BaseContext:
    """Return the context; its server begins to import what workers need: no open_clip, no model."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *needed])
    multiprocessing.forkserver.ensure_running()
    return context
