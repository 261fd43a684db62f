"""The interface of a method: its inputs and outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from xmore.files.errors import ConfigError
from xmore.files.paths import RESULTS
from xmore.methods.options import MethodOptions, Source

if TYPE_CHECKING:
    import torch

    from xmore.memory.snapshot import Snapshot
    from xmore.models.encoder import OpenClipEncoder
    from xmore.models.spec import ModelCard

Value = TypeVar("Value")
PAPER_K, PAPER_M = 128, 16  # arXiv 2308.15273, section 4
RETRIEVED = frozenset({"text_scores", "captions", "leaks"})  # of `needs`: there with a memory alone


@dataclass(frozen=True)
class Stream:
    """The confidences of the complete stream, by query_id. Memory: 16 bytes per query."""

    image_confidence: np.ndarray  # (N,) float64
    text_confidence: np.ndarray  # (N,) float64, NaN without captions


@dataclass(frozen=True)
class Scores:
    """One shard of the stored scores."""

    image: np.ndarray  # (Q, C) float32
    text: np.ndarray  # (Q, C) float32, a row of NaN without captions
    own: np.ndarray | None = None  # (Q, C) float32, computed by a Scorer


@dataclass(frozen=True)
class Variant:
    """One way to run a method: an adjustment, and a seed if the order of queries matters."""

    adjustment: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Weights:
    """The weight of each modality, by query_id; `step` (from 1) if the order of queries matters."""

    image: np.ndarray  # (N,) float64
    text: np.ndarray  # (N,) float64
    step: np.ndarray | None = field(default=None)  # (N,) int64

    def rows(self, start: int, stop: int) -> Weights:
        """The weights of queries [start, stop)."""
        step = None if self.step is None else self.step[start:stop]
        return Weights(self.image[start:stop], self.text[start:stop], step)


@dataclass(frozen=True)
class ViewSet:
    """Which augmented views of its images a method reads; equal sets are embedded only once."""

    count: int  # per image, the clean one included
    augmix: bool
    seed: int
    limit: int | None = None  # maximum number of images, drawn by `seed`

    def __str__(self) -> str:
        return f"{self.count} {'views with AugMix' if self.augmix else 'crops'}"


@dataclass(frozen=True)
class RunMemory:
    """The memory of the run, which stays open while it lasts."""

    snapshot: Snapshot
    model: ModelCard  # the coarse model, which has embedded its images


@dataclass(frozen=True)
class MethodRequest:
    """The parameters with which a config runs a method on one dataset."""

    dataset: str
    candidates: int  # K
    m: int | None  # None if the method reads no captions
    options: MethodOptions = field(default_factory=MethodOptions)
    cache: Path = RESULTS / "cache"  # of files' hashes
    memory: RunMemory | None = None
    model: ModelCard | None = None  # the inference model, for a Scorer


@dataclass(frozen=True)
class Setting:
    """A hyper-parameter's value and its source."""

    value: Any
    source: Source


Settings = dict[str, Setting]


def setting(value: Any, papers: Any) -> Setting:
    """Return a configurable value; its source is the paper if it equals the paper's value."""
    return Setting(value, "paper" if value == papers else "fixed")


def variant_name(method: str, adjustment: str | None) -> str:
    """Return the display name of a method and its adjustment."""
    return f"{method} {adjustment or ''}".strip()


def under(name: str, prompt_set: str) -> str:
    """Return the display name of what is under a prompt set: without a set, `name` alone."""
    return f"{name} under {prompt_set}" if prompt_set else name


@dataclass(frozen=True)
class Origin:
    """Where a method from outside comes from: a file, or a module of an installed package."""

    path: Path
    module: str = ""  # empty for a file

    def __str__(self) -> str:
        return self.module or str(self.path)


class Method(ABC):
    """One method. It declares what it needs and scores classes shard by shard."""

    name: ClassVar[str]
    origin: Origin | None = None  # set when a method from outside is loaded; None for ours
    # Increase it when the arithmetic changes. None, for a method that is being written: its source
    # is in its digest, so that each edit makes its numbers anew.
    version: ClassVar[int | None] = None
    needs: ClassVar[frozenset[str]]  # of {"image_scores", "text_scores"}

    @property
    def reads_captions(self) -> bool:
        """Whether the method reads captions, so that M matters."""
        return bool(self.needs & {"text_scores", "captions"})

    @property
    def needs_memory(self) -> bool:
        """Whether the method reads what a run retrieves from its memory: captions, or leaks."""
        return bool(self.needs & RETRIEVED)

    def variants(self, adjustments: Sequence[str], seeds: Sequence[int]) -> list[Variant]:
        """Return the variants in which a config's adjustments and seeds run this method."""
        return [Variant()]

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        """Return the hyper-parameters by name; empty if the method has none."""
        return {}

    def weights(self, stream: Stream, variant: Variant) -> Weights | None:
        """Return the weights of the complete stream, or None if this method has none."""
        return None

    @abstractmethod
    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        """Return (Q, C) float64 for one shard; a row of NaN means no prediction."""


@dataclass(frozen=True)
class QueryShard:
    """The inputs of a Scorer for Q queries; those that it does not need are None."""

    features: np.ndarray | None = None  # (Q, D) float32 unit rows: "query_embeddings"
    pixels: Callable[[], Iterator[torch.Tensor]] | None = (
        None  # batches (n, H, W, 3) uint8: "pixels"
    )
    views: np.ndarray | None = None  # (Q, V, D) float32 unit rows: "view_embeddings"
    captions: list[list[str]] | None = None  # at most M per query, best first: "captions"


def needed(value: Value | None) -> Value:
    """Return an input of a shard. Raises ValueError if the method's `needs` do not include it."""
    if value is None:
        raise ValueError("a method reads an input that its `needs` do not include")
    return value


@dataclass(frozen=True)
class ScoringContext:
    """The context of a Scorer: the inference model, and the classes as texts."""

    request: MethodRequest
    class_names: list[str]
    prompts: list[list[str]]  # one list per class
    tau: float
    texts: Callable[[Sequence[str]], np.ndarray]  # unit features; a text is encoded only once
    load: Callable[[], OpenClipEncoder]
    leaked: Callable[[], Collection[str]] = frozenset  # memory_keys of test images: "leaks"

    @cached_property
    def class_features(self) -> np.ndarray:
        """(C, D) float32 unit rows."""
        from xmore.methods.scoring import class_features

        flat = [text for of_class in self.prompts for text in of_class]
        return class_features(self.texts(flat), [len(of_class) for of_class in self.prompts])


class Scorer(Method):
    """A method that computes its own scores, in the stage `method_scores`.

    The stage `predictions` reads the stored scores. `needs` is a subset of {"query_embeddings",
    "pixels", "view_embeddings", "captions", "leaks"}.
    """

    # False: of the classes it reads the names alone, so that it is run for only one prompt set.
    reads_prompts: ClassVar[bool] = True
    part_rows: ClassVar[int] = 1024  # maximum number of queries of a part, which a kill can lose

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        """Raise XmoreError, before the run starts, if the method cannot work under `model`."""

    def view_set(self, request: MethodRequest) -> ViewSet:
        """Return the augmented views that the method reads, if it needs "view_embeddings"."""
        views = request.options.views
        augmix = not request.dataset.startswith("imagenet")
        augmix = augmix if views.augmix is None else views.augmix
        return ViewSet(views.count, augmix, views.seed, views.limit)

    @abstractmethod
    def identity(self, request: MethodRequest) -> dict[str, Any]:
        """Return what the scores depend on in `request` and in the files that it names (JSON)."""

    @abstractmethod
    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        """Return a function from a shard to (Q, C) float64 probabilities; called once."""

    def class_scores(self, scores: Scores, weights: Weights | None) -> np.ndarray:
        return needed(scores.own).astype(np.float64)


def check_published(method: str, what: str, published: Collection[str], dataset: str) -> None:
    """Raise ConfigError if an oracle method has nothing that was published for a dataset."""
    if dataset not in published:
        raise ConfigError(
            f"`methods`: `{method}` has published {what} for {', '.join(published)}, but not for "
            f"`{dataset}`. Remove it, or use `{method.removesuffix('-oracle')}`."
        )


def retrieval_settings(request: MethodRequest) -> Settings:
    """Return K and M, the settings of every method that reads captions."""
    return {"K": setting(request.candidates, PAPER_K), "M": setting(request.m, PAPER_M)}


def combine(scores: Scores, weights: Weights | None) -> np.ndarray:
    """Return (w_I P_I + w_T P_T) / (w_I + w_T), (Q, C) float64, in that order (design step 8).

    If both weights are 0, both become 0.5. Without captions only the image scores count. Raises
    ValueError without weights.
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
