"""Streams of images and texts through an encoder, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from xmore.config import ExecutionConfig
from xmore.encoders import OpenClipEncoder, TextFeatures
from xmore.images import ImageRejected, decode_image

Decoded = tuple[int, torch.Tensor | str]
"""An image's position, and its pixels or the cause why it has none."""


@dataclass(frozen=True)
class ImageFeatures:
    """Of a run of images: rows of those that decoded, and the causes of those that did not."""

    unit: np.ndarray  # (n, D) float32 unit rows
    kept: list[int]  # their positions among the images asked for
    rejected: dict[int, str]  # position -> cause


def encode_images(
    count: int, read: Callable[[int], bytes], encoder: OpenClipEncoder, execution: ExecutionConfig
) -> ImageFeatures:
    """Features of `count` images whose bytes `read(i)` gives (or raises ImageRejected).

    Decoding runs in threads, one batch ahead: memory holds two batches and the result. Pillow
    works without the interpreter's lock; forked workers die beside Prefect's own threads.
    """

    def decode(i: int) -> Decoded:
        try:
            return i, encoder.transform(decode_image(read(i)))
        except ImageRejected as error:
            return i, error.cause

    rows, kept, rejected = [], [], {}
    for batch in _batches(count, decode, execution):
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


def _batches(
    count: int, decode: Callable[[int], Decoded], execution: ExecutionConfig
) -> Iterator[list[Decoded]]:
    ahead: deque[list[Future[Decoded]]] = deque()
    with ThreadPoolExecutor(max(1, execution.workers)) as pool:
        for start in range(0, count, execution.batch_size):
            batch = range(start, min(start + execution.batch_size, count))
            ahead.append([pool.submit(decode, i) for i in batch])
            if len(ahead) > 1:
                yield [image.result() for image in ahead.popleft()]
        while ahead:
            yield [image.result() for image in ahead.popleft()]
