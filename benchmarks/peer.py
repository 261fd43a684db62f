"""CLIP_benchmark's loop over images, or one that does as it does where it is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import normalize
from torch.utils.data import Dataset

BATCH = 64  # its default


class Photos(Dataset):
    """Images as CLIP_benchmark's datasets give them: preprocessed by open_clip, with a label."""

    def __init__(self, folder: Path, names: list[str], transform: Any) -> None:
        self.folder, self.names, self.transform = folder, names, transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.folder / self.names[i])), 0


def peers_loop() -> tuple[str, Callable[..., Any]]:
    """Return CLIP_benchmark's own function if it is installed, else one that does as it does."""
    try:
        from clip_benchmark.metrics.zeroshot_classification import run_classification
    except ImportError:
        return "a loop as CLIP_benchmark's (which is not installed)", as_the_peer
    return "CLIP_benchmark", run_classification


@torch.no_grad()
def as_the_peer(model, classifier, loader, device, amp) -> tuple[torch.Tensor, torch.Tensor]:
    """Do as CLIP_benchmark does: copy a batch, encode it, compare with classes, copy back."""
    answers, labels = [], []
    for pixels, label in loader:
        with torch.autocast(device, enabled=amp):
            features = normalize(model.encode_image(pixels.to(device)), dim=-1)
            answers.append((100 * features @ classifier).float().cpu())
        labels.append(label)
    return torch.cat(answers), torch.cat(labels)
