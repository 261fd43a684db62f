"""A dataset's images for stages that look at them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tasks.stage import Workspace
from xmore.config import ExecutionConfig
from xmore.dataset import DatasetCard, open_images
from xmore.errors import DatasetError
from xmore.models import ModelCard
from xmore.readers import ImageReader, ListedImages

if TYPE_CHECKING:
    import torch

    from xmore.encoders import OpenClipEncoder
    from xmore.features import ToPixels


@dataclass(frozen=True)
class Pictures:
    """The images of a card, as a model wants them."""

    card: DatasetCard
    encoder: OpenClipEncoder
    execution: ExecutionConfig

    @cached_property
    def reader(self) -> ImageReader:
        return open_images(self.card)

    def pixels(
        self, rows: pa.Table, to_pixels: ToPixels | None = None, views: int = 1
    ) -> Iterator[torch.Tensor]:
        """Rows of `queries` -> uint8 batches (n, H, W, 3), or as `to_pixels` makes `views` of each.

        Raises DatasetError for an image that is not what was listed.
        """
        from xmore.features import image_batches

        images = ListedImages(self.reader, rows["uri"].to_pylist(), rows["sha256"].to_pylist())
        for batch in image_batches(images, self.encoder, self.execution, to_pixels, views):
            for i, cause in batch.rejected.items():
                raise DatasetError(
                    f"{self.card.root / images.names[i]}: {cause}. Run again to list the images "
                    "anew."
                )
            if batch.pixels is not None:
                yield batch.pixels

    def features(
        self, rows: pa.Table, to_pixels: ToPixels | None = None, views: int = 1
    ) -> np.ndarray:
        """Rows of `queries` -> (n, D) float32 unit rows, `views` of each image."""
        encoder, parts = self.encoder, []
        for pixels in self.pixels(rows, to_pixels, views):
            flat = pixels.flatten(0, 1) if views > 1 else pixels
            parts.append(encoder.encode_images(encoder.normalise(flat)))
        return np.concatenate(parts)


def pictures(work: Workspace, card: DatasetCard, model: ModelCard) -> Pictures:
    """The images of `card` for `model`, which is loaded."""
    from xmore.encoders import load_encoder, pick_device

    encoder = load_encoder(model, pick_device(work.execution.device))
    return Pictures(card, encoder, work.execution)
