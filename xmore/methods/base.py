"""What a method gets, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Stream:
    """The whole stream's confidences, by query_id: 16 bytes a query."""

    image_confidence: np.ndarray  # (N,) float64
    text_confidence: np.ndarray  # (N,) float64, NaN without captions


@dataclass(frozen=True)
class Scores:
    """One shard of the stored scores."""

    image: np.ndarray  # (Q, C) float32
    text: np.ndarray  # (Q, C) float32, a row of NaN without captions


@dataclass(frozen=True)
class Variant:
    """One way of running a method: an adjustment, and a seed where order plays a part."""

    adjustment: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Weights:
    """How much each modality counts, by query_id; `step` (from 1) where order plays a part."""

    image: np.ndarray  # (N,) float64
    text: np.ndarray  # (N,) float64
    step: np.ndarray | None = field(default=None)  # (N,) int64

    def rows(self, start: int, stop: int) -> Weights:
        """The weights of queries [start, stop)."""
        step = None if self.step is None else self.step[start:stop]
        return Weights(self.image[start:stop], self.text[start:stop], step)


def variant_name(method: str, adjustment: str | None) -> str:
    """A method and its adjustment, as people call them."""
    return f"{method} {adjustment or ''}".strip()


class Method(ABC):
    """One method. It declares what it needs and scores classes shard by shard."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # bump when its arithmetic changes
    needs: ClassVar[frozenset[str]]  # of {"image_scores", "text_scores"}
    hyperparameters: ClassVar[dict[str, str]] = {}  # name -> where its value comes from

    def variants(self, adjustments: Sequence[str], seeds: Sequence[int]) -> list[Variant]:
        """The ways in which a config's adjustments and seeds make this method run."""
        return [Variant()]

    def weights(self, stream: Stream, variant: Variant) -> Weights | None:
        """Weights of the whole stream, or None if this method has none."""
        return None

    @abstractmethod
    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        """(Q, C) float64 for one shard; a row of NaN where the method has no answer."""


def combine(scores: Scores, weights: Weights | None) -> np.ndarray:
    """(w_I P_I + w_T P_T) / (w_I + w_T), float64, in that order (design step 8).

    Where both weights are 0 both count as 0.5; a query without captions has its image alone.
    """
    if weights is None:
        raise ValueError("a method that combines needs weights")
    covered = ~np.isnan(scores.text).any(axis=1)
    image_weight = np.where(covered, weights.image, 1.0)
    text_weight = np.where(covered, weights.text, 0.0)
    silent = (image_weight == 0) & (text_weight == 0)
    image_weight = np.where(silent, 0.5, image_weight)[:, None]
    text_weight = np.where(silent, 0.5, text_weight)[:, None]
    image = scores.image.astype(np.float64)
    text = np.where(covered[:, None], scores.text, 0).astype(np.float64)
    return (image_weight * image + text_weight * text) / (image_weight + text_weight)
