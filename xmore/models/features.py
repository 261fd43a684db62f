"""Features of many images and texts, encoded in batches."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import BaseContext
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from xmore.files.progress import advance
from xmore.images.decode import ImageRejected, decode_image
from xmore.models.encoder import OpenClipEncoder, TextFeatures

log = logging.getLogger(__name__)

FEW = 512  # for this many images, starting worker processes takes longer than decoding
AHEAD = 2  # batches that each worker decodes in advance


class ImageSource(Protocol):
    """Images by number; can be sent to another process."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`. Raises ImageRejected."""


@dataclass(frozen=True)
class ImageFeatures:
    """The features of the images that could be decoded, and the causes for those that could not."""

    unit: np.ndarray  # (n, D) float32 unit rows; augmented views of one image are adjacent
    kept: list[int]  # their positions in the source
    rejected: dict[int, str]  # position -> cause


ToPixels = Callable[[Image.Image], torch.Tensor]
"""A decoded image -> uint8: (H, W, 3), the model's input, or (V, H, W, 3), its augmented views."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images, decoded."""

    pixels: torch.Tensor | None  # (n, ...) uint8 from `to_pixels`; None if all were rejected
    kept: list[int]
    rejected: dict[int, str]


def encode_images(
    source: ImageSource,
    encoder: OpenClipEncoder,
    batch_size: int,
    workers: int = 0,
    to_pixels: ToPixels | None = None,
    views: int = 1,
) -> ImageFeatures:
    """Encode all images of `source`, or the `views` augmented views that `to_pixels` makes of each.

    `workers` processes decode while the model runs; 0 chooses the number. Memory: AHEAD batches per
    worker, and the features.
    """
    rows, kept, rejected = [], [], {}
    for batch in image_batches(source, encoder, batch_size, workers, to_pixels, views):
        kept += batch.kept
        rejected.update(batch.rejected)
        if batch.pixels is not None:
            pixels = batch.pixels.flatten(0, 1) if views > 1 else batch.pixels
            rows += encoder.in_parts(lambda p: encoder.encode_images(encoder.normalise(p)), pixels)
    unit = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    return ImageFeatures(unit, kept, rejected)


def encode_texts(texts: Sequence[str], encoder: OpenClipEncoder, batch_size: int) -> TextFeatures:
    """Encode texts and return the features in their order.

    Batches are sorted by length, which keeps padding short.
    """
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
    parts = [
        part
        for start in range(0, len(order), batch_size)
        for part in encoder.in_parts(
            encoder.encode_texts, [texts[i] for i in order[start : start + batch_size]]
        )
    ]
    back = np.argsort(np.array(order))
    return TextFeatures(
        np.concatenate([part.unit for part in parts])[back],
        np.concatenate([part.norm for part in parts])[back],
        np.concatenate([part.truncated for part in parts])[back],
    )


def image_batches(
    source: ImageSource,
    encoder: OpenClipEncoder,
    batch_size: int,
    workers: int = 0,
    to_pixels: ToPixels | None = None,
    views: int = 1,
) -> Iterator[ImageBatch]:
    """Yield the images of `source`, decoded in worker processes, in batches of `batch_size` inputs.

    `to_pixels` replaces the model's resizing and makes `views` inputs per image. Memory: AHEAD
    batches per worker.
    """
    workers = _worker_count(len(source) * views, batch_size, workers, encoder.device)
    options: dict[str, Any] = {"multiprocessing_context": _context()} if workers else {}
    if workers:
        options["prefetch_factor"] = AHEAD
    for batch in DataLoader(
        _Decoding(source, to_pixels or _Resized(encoder.resize)),
        batch_size=max(1, batch_size // views),
        num_workers=workers,
        collate_fn=_collate,
        **options,
    ):
        yield batch
        advance(len(batch.kept) + len(batch.rejected))


@dataclass(frozen=True)
class _Resized:
    resize: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(self.resize(image)))


class _Decoding(Dataset):
    """`source` as a torch dataset: (position, pixels), or (position, cause) if rejected."""

    def __init__(self, source: ImageSource, to_pixels: ToPixels) -> None:
        self.source, self.to_pixels = source, to_pixels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor | str]:
        try:
            return i, self.to_pixels(decode_image(self.source.read(i)))
        except ImageRejected as error:
            return i, error.cause


def _collate(images: list[tuple[int, torch.Tensor | str]]) -> ImageBatch:
    good = [(i, pixels) for i, pixels in images if isinstance(pixels, torch.Tensor)]
    causes = {i: cause for i, cause in images if isinstance(cause, str)}
    pixels = torch.stack([image for _, image in good]) if good else None
    return ImageBatch(pixels, [i for i, _ in good], causes)


def _worker_count(images: int, batch_size: int, wanted: int, device: str) -> int:
    """Return the number of decoding processes; 0 means this process (few images, or no memory)."""
    if images <= FEW:
        return 0
    cores = os.cpu_count() or 1
    # A model on the CPU needs the cores itself; one decoding process keeps up with it.
    workers = wanted or (1 if device == "cpu" else max(1, min(16, cores - 1)))
    needed = workers * (AHEAD + 1) * batch_size * 3 * 336**2
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:  # not Linux, where shared memory is a folder
        return workers
    if stat.f_bavail * stat.f_frsize < needed:
        log.warning(
            "/dev/shm is too small for %d decoding processes (%d MB needed): decoding in this one. "
            "Give the container more shared memory, or lower execution.workers or batch_size.",
            workers,
            needed >> 20,
        )
        return 0
    return workers


@cache
def _context() -> BaseContext:
    """Return a context that forks workers from a clean server process.

    If they were forked from this process, locks held by its threads would stay locked in the fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    multiprocessing.forkserver.ensure_running()
    return context
