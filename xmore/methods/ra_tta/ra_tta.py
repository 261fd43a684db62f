"""`ra-tta`: memory images found by the descriptions that suit an image (Lee et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    ViewSet,
    needed,
)
from xmore.methods.products import inner_products, padded
from xmore.methods.ra_tta.texts import LEAST, described, template_of, texts_file

if TYPE_CHECKING:
    from xmore.methods.memories import ImagesByText
    from xmore.models.spec import ModelCard

VIEWS = 101  # crops, and the clean one
BEST = 20  # descriptions that an image chooses
RETRIEVED = 20  # images, for each class that is kept
REGULARISATION, ITERATIONS, STOP = 0.1, 100, 1e-2  # Sinkhorn's


class RaTta(Scorer):
    """An image's views choose descriptions; classes of which many are chosen retrieve images.

    A kept class is relevant if moving the views to its images costs little (optimal transport).
    That is combined with CLIP's scores, weighted by their entropies. If no class is kept, or the
    memory has no images but test images, it is CLIP with sentences and prompts.
    """

    name = "ra-tta"
    version = 1
    needs = frozenset({"view_embeddings", "leaks"})
    part_rows = 256  # whose views take 53 MB, and which have at most 1,024 kept classes

    def view_set(self, request: MethodRequest) -> ViewSet:
        return replace(super().view_set(request), count=VIEWS, augmix=False)

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        described(request, class_names)
        self.identity(request)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        given = request.options.ratta.descriptions
        values = {"views": VIEWS, "quantile": quantile_of(request.dataset), "descriptions": BEST,
                  "per_class": LEAST, "images": RETRIEVED, "sinkhorn": REGULARISATION}  # fmt: skip
        texts = {"texts": Setting(given.name if given else f"{request.dataset}.json", "fixed")}
        return {name: Setting(value, "paper") for name, value in values.items()} | texts

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        from xmore.files.digests import digest_file
        from xmore.methods.memories import identity_of, memory_of

        with memory_of(request, self.name) as memory:
            return {
                **identity_of(memory),
                "texts": digest_file(texts_file(request)),
                "template": template_of(request.dataset),
                "quantile": quantile_of(request.dataset),
            }

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.memories import ImagesByText, memory_of

        held = memory_of(context.request, self.name)
        # Held until `score` is freed, which closes the locked file.
        images = ImagesByText(held.__enter__(), context.leaked())
        classes = Descriptions.of(context)
        tau = context.tau

        def score(shard: QueryShard, held: object = held) -> np.ndarray:
            return scored(needed(shard.views), classes, images, tau)

        return score


def quantile_of(dataset: str) -> float:
    """Return which quantile over the views is a description's similarity to an image."""
    return 0.9 if dataset.startswith("imagenet") else 0.75


@dataclass(frozen=True)
class Descriptions:
    """The classes as texts. Memory: 8 D bytes per description."""

    features: np.ndarray  # float32, `padded`: (T, D) unit rows, class after class
    label: np.ndarray  # (T,) int64
    classes: np.ndarray  # (C, D) float64 unit rows: of sentences and prompts
    quantile: float

    @classmethod
    def of(cls, context: ScoringContext) -> Descriptions:
        """Encode the texts of `context`, those of all classes at once."""
        texts = described(context.request, context.class_names)
        plain = [[*a, *b] for a, b in zip(texts.sentences, context.prompts, strict=True)]
        sizes = [len(of_class) for of_class in texts.descriptions]
        return cls(
            padded(context.texts([text for of_class in texts.descriptions for text in of_class])),
            np.repeat(np.arange(len(sizes)), sizes),
            np.stack([unit_mean(context.texts(of_class)) for of_class in plain]),
            quantile_of(context.request.dataset),
        )


@dataclass(frozen=True)
class Kept:
    """The classes that an image keeps."""

    labels: np.ndarray  # (G,) int64, ascending
    prototypes: np.ndarray  # (G, D) float64 unit rows
    everything: np.ndarray  # (D,) float64, the unit mean of all kept descriptions


def scored(
    views: np.ndarray, classes: Descriptions, images: ImagesByText, tau: float
) -> np.ndarray:
    """Return the class scores: (Q, V, D) float32 unit rows -> (Q, C) float64 that sum to 1.

    Memory: the images that all of them retrieve, and the similarities of one image's views to all
    descriptions.
    """
    from scipy.special import softmax

    kept = [kept_by(each, classes) for each in views]
    retrieved = _retrieved([one.prototypes for one in kept], images)
    scores = softmax(tau * inner_products(views[:, 0].astype(np.float64), classes.classes), axis=1)
    for row, (each, one) in enumerate(zip(views, kept, strict=True)):
        found = [label for label, images in enumerate(retrieved[row]) if len(images)]
        if found:
            costs = distances(each.astype(np.float64), one, retrieved[row], tau)[found]
            theirs = np.zeros(scores.shape[1])
            theirs[one.labels[found]] = softmax(tau / (costs + 1))
            scores[row] = combined(scores[row], theirs)
    return scores


def kept_by(views: np.ndarray, classes: Descriptions) -> Kept:
    """Return the classes that have LEAST of the BEST descriptions of (V, D) views.

    Of equal descriptions the earlier is chosen.
    """
    similarities = inner_products(classes.features, views)[: len(classes.label)]
    near = np.quantile(similarities, classes.quantile, axis=1, overwrite_input=True)
    chosen = np.argsort(-near, kind="stable")[:BEST]
    labels, place, count = np.unique(classes.label[chosen], return_inverse=True, return_counts=True)
    few = count < LEAST
    rows = [classes.features[chosen[place == i]] for i in np.flatnonzero(~few)]
    if not rows:
        none = np.zeros((0, views.shape[1]))
        return Kept(labels[:0], none, none.sum(0))
    prototypes = np.stack([unit_mean(of_class) for of_class in rows])
    return Kept(labels[~few], prototypes, unit_mean(np.concatenate(rows)))


def unit_mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean of (n, D) rows, of length 1 again: (D,) float64."""
    total = rows.astype(np.float64).sum(0)
    return total / np.linalg.norm(total)


def _retrieved(prototypes: Sequence[np.ndarray], images: ImagesByText) -> list[list[np.ndarray]]:
    """Return the images nearest to each prototype of each query: at most RETRIEVED rows of float32.

    All prototypes are searched at once.
    """
    flat = np.concatenate(prototypes).astype(np.float32)
    if not len(flat):
        return [[] for _ in prototypes]
    ids = images(flat, RETRIEVED)
    rows = images.embeddings(ids[ids >= 0])
    each = iter(np.split(rows, np.cumsum((ids >= 0).sum(1))[:-1]))
    return [[next(each) for _ in of_query] for of_query in prototypes]


def distances(
    views: np.ndarray, kept: Kept, retrieved: Sequence[np.ndarray], tau: float
) -> np.ndarray:
    """Return what it costs to move (V, D) views to each kept class's images: (G,) float64.

    NaN for a class without images.
    """
    import ot
    from scipy.special import softmax

    weights = softmax(tau * (views @ kept.everything))
    costs = np.full(len(kept.labels), np.nan)
    for i, (prototype, images) in enumerate(zip(kept.prototypes, retrieved, strict=True)):
        if not len(images):
            continue
        theirs = images.astype(np.float64) @ prototype
        cost = np.abs((views @ prototype)[:, None] - theirs)
        plan = ot.sinkhorn(
            weights, softmax(tau * theirs), cost, REGULARISATION,
            numItermax=ITERATIONS, stopThr=STOP, warn=False,
        )  # fmt: skip
        costs[i] = (plan * cost).sum()
    return costs


def combined(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return two distributions of (C,), each weighted by how low its entropy is."""
    from scipy.special import entr

    entropies = entr(mine).sum(), -(theirs * np.log(theirs + 1e-7)).sum()
    first, second = (np.exp(1 / (1 + entropy)) for entropy in entropies)
    return (first * mine + second * theirs) / (first + second)


METHOD = RaTta()
