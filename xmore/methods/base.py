"""What a method gets, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from xmore.methods.options import MethodOptions, Source

if TYPE_CHECKING:
    import torch

    from xmore.models.encoder import OpenClipEncoder
    from xmore.models.spec import ModelCard

Value = TypeVar("Value")
PAPER_K, PAPER_M = 128, 16  # arXiv 2308.15273, section 4


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
    own: np.ndarray | None = None  # (Q, C) float32, of a Scorer


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


@dataclass(frozen=True)
class MethodRequest:
    """What a config asks of a method on one dataset."""

    dataset: str
    candidates: int  # K
    m: int | None  # None where the method reads no captions
    options: MethodOptions = field(default_factory=MethodOptions)


@dataclass(frozen=True)
class Setting:
    """A hyper-parameter's value, and where it comes from."""

    value: Any
    source: Source


Settings = dict[str, Setting]


def setting(value: Any, papers: Any) -> Setting:
    """A value that a config may change, beside the one of the method's paper."""
    return Setting(value, "paper" if value == papers else "fixed")


def variant_name(method: str, adjustment: str | None) -> str:
    """A method and its adjustment, as people call them."""
    return f"{method} {adjustment or ''}".strip()


class Method(ABC):
    """One method. It declares what it needs and scores classes shard by shard."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # bump when its arithmetic changes
    needs: ClassVar[frozenset[str]]  # of {"image_scores", "text_scores"}

    @property
    def reads_captions(self) -> bool:
        """Whether M plays a part."""
        return bool(self.needs & {"text_scores", "captions"})

    def variants(self, adjustments: Sequence[str], seeds: Sequence[int]) -> list[Variant]:
        """The ways in which a config's adjustments and seeds make this method run."""
        return [Variant()]

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        """The hyper-parameters by name; none for a method that has none."""
        return {}

    def weights(self, stream: Stream, variant: Variant) -> Weights | None:
        """Weights of the whole stream, or None if this method has none."""
        return None

    @abstractmethod
    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        """(Q, C) float64 for one shard; a row of NaN where the method has no answer."""


@dataclass(frozen=True)
class QueryShard:
    """What a Scorer needs of Q queries; None for what it does not."""

    features: np.ndarray | None = None  # (Q, D) float32 unit rows: "query_embeddings"
    pixels: Callable[[], Iterator[torch.Tensor]] | None = (
        None  # batches (n, H, W, 3) uint8: "pixels"
    )
    views: np.ndarray | None = None  # (Q, V, D) float32 unit rows: "view_embeddings"
    captions: list[list[str]] | None = None  # at most M of each query, the best first: "captions"


def needed(value: Value | None) -> Value:
    """What a shard holds, for whoever has it among `needs`; raises ValueError for the others."""
    if value is None:
        raise ValueError("a method asks for what is not among its `needs`")
    return value


@dataclass(frozen=True)
class ScoringContext:
    """What a Scorer works with: the inference model, and the classes as texts."""

    request: MethodRequest
    class_names: list[str]
    prompts: list[list[str]]  # of each class
    tau: float
    texts: Callable[[Sequence[str]], np.ndarray]  # unit features; each text is encoded once, ever
    load: Callable[[], OpenClipEncoder]

    @cached_property
    def class_features(self) -> np.ndarray:
        """(C, D) float32 unit rows."""
        from xmore.methods.scoring import class_features

        flat = [text for of_class in self.prompts for text in of_class]
        return class_features(self.texts(flat), [len(of_class) for of_class in self.prompts])


class Scorer(Method):
    """A method that scores classes by itself, in the stage `method_scores`.

    `predictions` reads what that has stored. It needs of {"query_embeddings", "pixels",
    "view_embeddings", "captions"}.
    """

    part_rows: ClassVar[int] = 1024  # queries of a part at most: what a kill can lose

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        """Refuse in one line what cannot work, before the run starts. Raises XmoreError."""

    @abstractmethod
    def identity(self, request: MethodRequest) -> dict[str, Any]:
        """What of `request`, and of files that it names, the scores depend on."""

    @abstractmethod
    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        """Once before all shards; the value turns a shard into (Q, C) float64 probabilities."""

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        return needed(scores.own).astype(np.float64)


def retrieval_settings(request: MethodRequest) -> Settings:
    """K and M, as every method has them that reads captions."""
    return {"K": setting(request.candidates, PAPER_K), "M": setting(request.m, PAPER_M)}


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
