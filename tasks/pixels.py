"""A dataset's images for the stages that read them: one stream, from which parts are cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace
from xmore.datasets.card import DatasetCard
from xmore.datasets.scan import open_images, set_aside
from xmore.files.errors import DatasetError
from xmore.files.progress import advance
from xmore.images.readers import ImageReader, ListedImages
from xmore.models.loaded import load_encoder
from xmore.models.spec import ModelCard

if TYPE_CHECKING:
    import torch

    from xmore.models.decoding import ToPixels
    from xmore.models.encoder import OpenClipEncoder
    from xmore.models.features import Batch

Span = tuple[int, int]
"""The items [start, stop) of a part."""
RowsOf = Callable[[int, int], pa.Table]
"""start, stop -> the rows of `queries` of a part."""
Part = TypeVar("Part")


class Stream(Generic[Part]):
    """The parts of a stage, cut from one generator.

    It begins at the first part that is asked for, and anew if another than the next one is.
    """

    def __init__(
        self, spans: Sequence[Span], begin: Callable[[Sequence[Span]], Iterator[Part]]
    ) -> None:
        """`begin` yields the given last spans' parts, in their order."""
        self._spans, self._begin = spans, begin
        self._coming: Iterator[Part] | None = None
        self._next = 0

    def __call__(self, start: int, stop: int) -> Part:
        """Return the part of a span."""
        at = self._spans.index((start, stop))
        if self._coming is None or at != self._next:
            self._coming = self._begin(self._spans[at:])
        self._next = at + 1
        return next(self._coming)


def spans_of(sizes: Sequence[int]) -> list[Span]:
    """Return the spans of parts of such sizes."""
    stops = np.cumsum(sizes).tolist()
    return [(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


@dataclass(frozen=True)
class DatasetImages:
    """The images of a card, preprocessed for a model."""

    card: DatasetCard
    cache: Path  # of what `queries` found out about the files
    encoder: OpenClipEncoder
    batch_size: int
    workers: int

    @cached_property
    def reader(self) -> ImageReader:
        return open_images(self.card)

    def pixels(self, spans: Sequence[Span], rows: RowsOf) -> Stream[Iterator[torch.Tensor]]:
        """Return parts, each of batches (n, H, W, 3) uint8 on the device.

        A part can be read until the next one is asked for. Raises DatasetError: see `_refuse`.
        """
        from xmore.models.features import batches, decoder_of

        decoder = decoder_of(self.encoder, self.batch_size, self.workers)

        def begin(spans: Sequence[Span]) -> Iterator[Iterator[torch.Tensor]]:
            listed: deque[ListedImages] = deque()
            parts = self._listed(spans, rows, listed)
            found = batches(parts, _count(spans), self.encoder.device, decoder)
            for _, of_part in groupby(found, attrgetter("part")):
                yield self._pixels(of_part, listed.popleft())

        return Stream(spans, begin)

    def _pixels(self, of_part: Iterable[Batch], images: ListedImages) -> Iterator[torch.Tensor]:
        for batch in of_part:
            self._refuse(images, batch.rejected)
            if batch.pixels is not None:
                yield batch.pixels
            advance(len(batch.kept))

    def features(
        self,
        spans: Sequence[Span],
        rows: RowsOf,
        to_pixels: ToPixels | None = None,
        views: int = 1,
    ) -> Stream[np.ndarray]:
        """Return parts, each (n, D) float32 unit rows.

        With `to_pixels`, which makes `views` augmented views of each image: (n * views, D).
        Raises DatasetError: see `_refuse`.
        """
        from xmore.models.features import decoder_of, encode_parts

        decoder = decoder_of(self.encoder, self.batch_size, self.workers, to_pixels, views)

        def begin(spans: Sequence[Span]) -> Iterator[np.ndarray]:
            listed: deque[ListedImages] = deque()
            parts = self._listed(spans, rows, listed)
            for found in encode_parts(parts, _count(spans), self.encoder, decoder):
                self._refuse(listed.popleft(), found.rejected)
                yield found.unit

        return Stream(spans, begin)

    def _listed(
        self, spans: Sequence[Span], rows: RowsOf, listed: deque[ListedImages]
    ) -> Iterator[ListedImages]:
        """Yield each part's images when it is begun, and keep them in `listed`."""
        for start, stop in spans:
            part = rows(start, stop)
            names, hashes = part["uri"].to_pylist(), part["sha256"].to_pylist()
            listed.append(ListedImages(self.reader, names, hashes))
            yield listed[-1]

    def _refuse(self, images: ListedImages, rejected: dict[int, str]) -> None:
        """Raise DatasetError if an image is not the one that was listed, or cannot be decoded.

        `queries` decodes JPEGs as drafts: should one fail only here, the next run rejects it.
        """
        if rejected:
            causes = {images.names[i]: cause for i, cause in rejected.items()}
            set_aside(self.card, self.cache, causes)
        for i, cause in rejected.items():
            raise DatasetError(
                f"{self.card.root / images.names[i]}: {cause}. Run the same command again, which "
                "lists the images again."
            )


def dataset_images(
    work: Workspace, card: DatasetCard, model: ModelCard, spans: Sequence[Span] = ()
) -> DatasetImages:
    """Return the images of `card` for `model`, of which `spans` are wanted. Loads the model."""
    encoder = load_encoder(model, work.device, images=_count(spans))
    return DatasetImages(card, work.cache, encoder, work.batch_size(model), work.execution.workers)


def _count(spans: Sequence[Span]) -> int:
    return sum(stop - start for start, stop in spans)
