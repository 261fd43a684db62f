"""Streams of images and texts through an encoder, in batches."""

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

from xmore.images.decode import ImageRejected, decode_image
from xmore.models.encoder import OpenClipEncoder, TextFeatures

log = logging.getLogger(__name__)

FEW = 512  # images that are decoded sooner than worker processes are up
AHEAD = 2  # batches that each worker decodes ahead


class ImageSource(Protocol):
    """Images by their number; can be sent to another process."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """The bytes of image `i`; raises ImageRejected."""


@dataclass(frozen=True)
class ImageFeatures:
    """Of a run of images: rows of those that decoded, and the causes of those that did not."""

    unit: np.ndarray  # (n, D) float32 unit rows; views of one image next to each other
    kept: list[int]  # their positions in the source
    rejected: dict[int, str]  # position -> cause


ToPixels = Callable[[Image.Image], torch.Tensor]
"""A decoded image -> uint8, (H, W, 3) or (V, H, W, 3): as the model wants it, or views of it."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images, decoded."""

    pixels: torch.Tensor | None  # (n, ...) uint8 as `to_pixels` gives it; none: all were rejected
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
    """Features of all images of `source`, or of the `views` that `to_pixels` makes of each.

    `workers` processes decode while the model works (0: as many as pay). Memory holds AHEAD batches
    a worker, and the features.
    """
    rows, kept, rejected = [], [], {}
    for batch in image_batches(source, encoder, batch_size, workers, to_pixels, views):
        kept += batch.kept
        rejected.update(batch.rejected)
        if batch.pixels is not None:
            pixels = batch.pixels.flatten(0, 1) if views > 1 else batch.pixels
            rows.append(encoder.encode_images(encoder.normalise(pixels)))
    unit = np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)
    return ImageFeatures(unit, kept, rejected)


def encode_texts(texts: Sequence[str], encoder: OpenClipEncoder, batch_size: int) -> TextFeatures:
    """Features of texts, in their order; run sorted by length, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
    parts = [
        encoder.encode_texts([texts[i] for i in order[start : start + batch_size]])
        for start in range(0, len(order), batch_size)
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
    """The images of `source`, decoded in worker processes, in batches of `batch_size` inputs.

    `to_pixels` stands in for the model's resizing; it makes `views` inputs of an image. Memory
    holds AHEAD batches a worker.
    """
    workers = _worker_count(len(source) * views, batch_size, workers, encoder.device)
    options: dict[str, Any] = {"multiprocessing_context": _context()} if workers else {}
    if workers:
        options["prefetch_factor"] = AHEAD
    yield from DataLoader(
        _Decoding(source, to_pixels or _Resized(encoder.resize)),
        batch_size=max(1, batch_size // views),
        num_workers=workers,
        collate_fn=_collate,
        **options,
    )


@dataclass(frozen=True)
class _Resized:
    resize: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(self.resize(image)))


class _Decoding(Dataset):
    """`source` as a torch dataset: (position, pixels), or (position, cause) of a rejected one."""

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
    """How many processes decode; 0: this one does, as they would not pay or not fit."""
    if images <= FEW:
        return 0
    cores = os.cpu_count() or 1
    # A model on the CPU wants the cores for itself; one beside it keeps up with it.
    workers = wanted or (1 if device == "cpu" else max(1, min(16, cores - 1)))
    needed = workers * (AHEAD + 1) * batch_size * 3 * 336**2
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:  # not Linux: shared memory is not a folder there
        return workers
    if stat.f_bavail * stat.f_frsize < needed:
        log.warning(
            "/dev/shm is too small for %d decoding processes (%d MB wanted): decoding in this one. "
            "Give the container more shared memory, or lower execution.workers or batch_size.",
            workers,
            needed >> 20,
        )
        return 0
    return workers


@cache
def _context() -> BaseContext:
    """Workers are forked from a clean server process.

    Not from this one: its threads (Prefect's, torch's) would leave locks held in a fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    multiprocessing.forkserver.ensure_running()
    return context
