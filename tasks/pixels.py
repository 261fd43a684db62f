"""A dataset's images, batch by batch, for the stages that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace
from xmore.datasets.card import DatasetCard
from xmore.datasets.scan import open_images, set_aside
from xmore.files.errors import DatasetError
from xmore.images.readers import ImageReader, ListedImages
from xmore.models.spec import ModelCard

if TYPE_CHECKING:
    import torch

    from xmore.models.encoder import OpenClipEncoder
    from xmore.models.features import ToPixels


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

    def pixels(self, rows: pa.Table) -> Iterator[torch.Tensor]:
        """Read rows of `queries` -> batches (n, H, W, 3) uint8. Raises DatasetError: `_refuse`."""
        from xmore.models.features import image_batches

        images = self._listed(rows)
        for batch in image_batches(images, self.encoder, self.batch_size, self.workers):
            self._refuse(images, batch.rejected)
            if batch.pixels is not None:
                yield batch.pixels

    def features(
        self, rows: pa.Table, to_pixels: ToPixels | None = None, views: int = 1
    ) -> np.ndarray:
        """Encode rows of `queries` -> (n, D) float32 unit rows.

        With `to_pixels`, which makes `views` augmented views of each image: (n * views, D).
        Raises DatasetError: see `_refuse`.
        """
        from xmore.models.features import encode_images

        images = self._listed(rows)
        found = encode_images(images, self.encoder, self.batch_size, self.workers, to_pixels, views)
        self._refuse(images, found.rejected)
        return found.unit

    def _listed(self, rows: pa.Table) -> ListedImages:
        return ListedImages(self.reader, rows["uri"].to_pylist(), rows["sha256"].to_pylist())

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


def dataset_images(work: Workspace, card: DatasetCard, model: ModelCard) -> DatasetImages:
    """Return the images of `card` for `model`. Loads the model."""
    from xmore.models.encoder import load_encoder, pick_device

    encoder = load_encoder(model, pick_device(work.execution.device))
    execution = work.execution
    return DatasetImages(card, work.cache, encoder, execution.batch_size, execution.workers)
