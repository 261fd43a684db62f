"""Streams of images and texts through an encoder, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from xmore.config import ExecutionConfig
from xmore.encoders import OpenClipEncoder, TextFeatures
from xmore.images import ImageRejected, decode_image


@dataclass(frozen=True)
class ImageFeatures:
    """Of a run of images: rows of those that decoded, and the causes of those that did not."""

    unit: np.ndarray  # (n, D) float32 unit rows
    kept: list[int]  # their positions among the images asked for
    rejected: dict[int, str]  # position -> cause


class _Pixels(Dataset):
    """Decoded and transformed images, or the cause why not."""

    def __init__(
        self, count: int, read: Callable[[int], bytes], transform: Callable[..., torch.Tensor]
    ) -> None:
        self.count, self.read, self.transform = count, read, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor | str]:
        try:
            return i, self.transform(decode_image(self.read(i)))
        except ImageRejected as error:
            return i, error.cause


def encode_images(
    count: int, read: Callable[[int], bytes], encoder: OpenClipEncoder, execution: ExecutionConfig
) -> ImageFeatures:
    """Features of `count` images whose bytes `read(i)` gives (or raises ImageRejected).

    Decoding runs in worker processes, at most two batches a worker ahead: memory holds those
    batches and the result.
    """
    rows, kept, rejected = [], [], {}
    for batch in _batches(_Pixels(count, read, encoder.transform), execution):
        good = [(i, pixels) for i, pixels in batch if isinstance(pixels, torch.Tensor)]
        rejected.update({i: cause for i, cause in batch if isinstance(cause, str)})
        if good:
            kept += [i for i, _ in good]
            rows.append(encoder.encode_images(torch.stack([pixels for _, pixels in good])))
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


def _batches(pixels: _Pixels, execution: ExecutionConfig) -> Iterator[list]:
    # A few images are decoded sooner than processes start.
    workers = execution.workers if len(pixels) > execution.batch_size else 0
    return iter(
        DataLoader(
            pixels,
            batch_size=execution.batch_size,
            num_workers=workers,
            collate_fn=list,
            multiprocessing_context="fork" if workers else None,
        )
    )
