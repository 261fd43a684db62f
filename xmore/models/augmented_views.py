"""Augmented views of an image, as in test-time prompt tuning (Shu et al. 2022)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

AUGMIX_SEVERITY = 1  # as in TPT's public code


@dataclass(frozen=True)
class ViewMaker:
    """Makes the clean view and random resized crops with flips; equal images get equal views.

    With `augmix` each crop is mixed with chains of additional augmentations (Hendrycks et al. 2020,
    torchvision's implementation).
    """

    resize: Any  # the model's own, for the clean view
    size: tuple[int, int]  # (H, W)
    count: int
    augmix: bool
    seed: int

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return (count, H, W, 3) uint8; the clean view is first."""
        crop = [v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip()]
        mix = [v2.AugMix(severity=AUGMIX_SEVERITY, all_ops=False)] if self.augmix else []
        augment = v2.Compose([*crop, *mix])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed_of(image))
            views = [self.resize(image), *(augment(image) for _ in range(self.count - 1))]
        return torch.from_numpy(np.stack([np.asarray(view) for view in views]))

    def _seed_of(self, image: Image.Image) -> int:
        content = hashlib.sha256(f"{self.seed} {image.size}".encode() + image.tobytes())
        return int.from_bytes(content.digest()[:8], "big") >> 1
