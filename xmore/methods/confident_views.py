"""`confident-views`: the mean over an image's most confident augmented views, without tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Settings,
    Variant,
    needed,
    setting,
)
from xmore.methods.options import ViewsOptions

PAPERS = ViewsOptions()  # Shu et al. 2022: 64 augmented views; a tenth of them is kept


class ConfidentViews(Scorer):
    """Ours: TPT's confidence selection (Shu et al. 2022, section 3.2) without the tuning.

    Class scores are the mean probabilities of the augmented views with the lowest entropy.
    """

    name = "confident-views"
    version = 1
    needs = frozenset({"view_embeddings"})

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return view_settings(request.options.views)

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {"keep": request.options.views.keep}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.scoring import class_probabilities

        keep = context.request.options.views.keep

        def score(shard: QueryShard) -> np.ndarray:
            scores = []
            for views in needed(shard.views):
                probabilities = class_probabilities(views, context.class_features, context.tau)
                scores.append(probabilities[confident(probabilities, keep)].mean(0))
            return np.stack(scores)

        return score


def confident(probabilities: np.ndarray, keep: float) -> np.ndarray:
    """Select the augmented views of lowest entropy: (V, C) float64 -> positions.

    There are `kept_of` positions; ties go to the earlier one.
    """
    return by_entropy(probabilities)[: kept_of(len(probabilities), keep)]


def by_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Order augmented views by rising entropy, then by place: (V, C) float64 -> (V,) positions."""
    from scipy.special import entr

    return np.argsort(entr(probabilities).sum(1), kind="stable")


def kept_of(count: int, keep: float) -> int:
    """Return how many of `count` augmented views are kept: max(1, floor(count keep))."""
    return max(1, int(count * keep))


def view_settings(views: ViewsOptions) -> Settings:
    """Return the hyper-parameters of the augmented views."""
    return {"count": setting(views.count, PAPERS.count), "keep": setting(views.keep, PAPERS.keep)}


METHOD = ConfidentViews()
