"""Features of many images and texts, encoded in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from xmore.files.progress import advance
from xmore.images.readers import ListedImages
from xmore.models.cores import Cores
from xmore.models.decoding import Decoded, Decoder, Resized, ToPixels
from xmore.models.encoder import OpenClipEncoder, TextFeatures
from xmore.models.transfer import Coming, to_device

IN_FLIGHT = 2  # batches that a GPU has before it: it goes on while a part is written


@dataclass(frozen=True)
class ImageFeatures:
    """The features of the images that could be decoded, and the causes for those that could not."""

    unit: np.ndarray  # (n, D) float32 unit rows; augmented views of one image are adjacent
    kept: list[int]  # their positions in the source
    rejected: dict[int, str]  # position -> cause


@dataclass(frozen=True)
class Batch:
    """Images of a part that the model is given together."""

    pixels: torch.Tensor | None  # (n, H, W, 3) uint8 on the model's device; None if all rejected
    kept: list[int]
    rejected: dict[int, str]
    part: int  # its number
    ends_part: bool


def encode_images(
    source: ListedImages,
    encoder: OpenClipEncoder,
    batch_size: int,
    workers: int = 0,
    to_pixels: ToPixels | None = None,
    views: int = 1,
) -> ImageFeatures:
    """Encode all images of `source`: a single part of `encode_parts`."""
    decoder = decoder_of(encoder, batch_size, workers, to_pixels, views)
    return next(encode_parts([source], len(source), encoder, decoder))


def decoder_of(
    encoder: OpenClipEncoder,
    batch_size: int,
    workers: int = 0,
    to_pixels: ToPixels | None = None,
    views: int = 1,
) -> Decoder:
    """Return how images are decoded for a model, in batches of `batch_size` inputs.

    `to_pixels` replaces the model's resizing and makes `views` inputs per image.
    """
    batch = max(1, batch_size // views)
    return Decoder(to_pixels or Resized(encoder.resize), batch, views, workers, encoder.device)


def encode_parts(
    parts: Iterable[ListedImages], count: int, encoder: OpenClipEncoder, decoder: Decoder
) -> Iterator[ImageFeatures]:
    """Yield the features of each part, which have `count` images in all, in their order.

    Worker processes decode while the model runs; they start once. Batches, and with them the last
    bits, are those of each part alone. Memory: AHEAD units per worker, the features of a part, and
    what is in flight: IN_FLIGHT batches on a GPU, at most a batch and cores.EACH passes of each
    core on a CPU.
    """
    inputs, batch_inputs = count * decoder.views, decoder.batch * decoder.views
    waiting: deque[tuple[Batch, list[Coming]]] = deque()
    found = _Part(encoder)

    def start(pixels: torch.Tensor) -> Coming:
        return encoder.start_images(encoder.normalise(pixels))

    with Cores() as cores:
        if encoder.by_core and cores.would_be_busy(inputs):
            begin, in_flight = partial(cores.begin, start), cores.in_flight(batch_inputs)
        else:
            begin = partial(encoder.in_parts, start)
            in_flight = 0 if encoder.device == "cpu" else IN_FLIGHT
        for batch in batches(parts, count, encoder.device, decoder):
            waiting.append((batch, [] if batch.pixels is None else begin(batch.pixels)))
            while len(waiting) > in_flight:
                if done := found.add(*waiting.popleft()):
                    yield done
        while waiting:
            if done := found.add(*waiting.popleft()):
                yield done


def batches(
    parts: Iterable[ListedImages], count: int, device: str, decoder: Decoder
) -> Iterator[Batch]:
    """Yield the images of parts, which are `count` in all, in batches that no two parts share."""
    units: list[Decoded] = []
    part = 0
    for unit in decoder(parts, count):
        units.append(unit)
        if unit.ends_batch:
            yield _batch(units, part, device, decoder.views)
            units, part = [], part + unit.ends_part


def _batch(units: list[Decoded], part: int, device: str, views: int) -> Batch:
    good = [unit.pixels for unit in units if unit.pixels is not None]
    pixels = to_device(good, device) if good else None
    if pixels is not None and views > 1:
        pixels = pixels.flatten(0, 1)
    rejected = {i: cause for unit in units for i, cause in unit.rejected.items()}
    kept = [i for unit in units for i in unit.kept]
    return Batch(pixels, kept, rejected, part, units[-1].ends_part)


@dataclass
class _Part:
    """What is there of a part."""

    encoder: OpenClipEncoder
    rows: list[np.ndarray] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)

    def add(self, batch: Batch, begun: list[Coming]) -> ImageFeatures | None:
        """Wait for a batch's features; return those of the part once it is complete."""
        self.rows += [self.encoder.rows(each) for each in begun]
        self.kept += batch.kept
        self.rejected.update(batch.rejected)
        advance(len(batch.kept) + len(batch.rejected))
        if not batch.ends_part:
            return None
        unit = np.concatenate(self.rows) if self.rows else np.zeros((0, 0), np.float32)
        done = ImageFeatures(unit, self.kept, self.rejected)
        self.rows, self.kept, self.rejected = [], [], {}
        return done


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
