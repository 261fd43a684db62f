"""`zero`: the votes of an image's most confident crops (Farina et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    setting,
)
from xmore.methods.confident_views import by_entropy, kept_of, view_settings
from xmore.methods.options import ZeroOptions

PAPERS = ZeroOptions()


class Zero(Scorer):
    """Each kept view has one vote; class scores are the shares of the votes.

    The views are crops and flips, never AugMix. Memory: the probabilities of one image's views.
    """

    name = "zero"
    version = 1
    needs = frozenset({"view_embeddings"})

    def view_set(self, request: MethodRequest) -> ViewSet:
        return replace(super().view_set(request), augmix=False)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return view_settings(request.options.views) | {
            "keep": setting(request.options.zero.keep, PAPERS.keep),
            "augmix": Setting(False, "paper"),
        }

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {"keep": request.options.zero.keep}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        keep, texts, tau = context.request.options.zero.keep, context.class_features, context.tau

        def score(shard: QueryShard) -> np.ndarray:
            return np.stack([shares(views, texts, tau, keep) for views in needed(shard.views)])

        return score


def shares(views: np.ndarray, texts: np.ndarray, tau: float, keep: float) -> np.ndarray:
    """Return each class's share of the kept views' votes: (V, D), (C, D) -> (C,) float64.

    Of classes with equally many votes, one gets one more: see `_winner`.
    """
    from xmore.methods.scoring import class_probabilities

    probabilities = class_probabilities(views, texts, tau)
    order, kept = by_entropy(probabilities), kept_of(len(views), keep)
    answers = probabilities.argmax(1)[order]
    votes = np.bincount(answers[:kept], minlength=len(texts)).astype(np.float64)
    tied = np.flatnonzero(votes == votes.max())
    if len(tied) > 1:
        votes[_winner(tied, answers[kept:], views, texts)] += 1
    return votes / votes.sum()


def _winner(tied: np.ndarray, others: np.ndarray, views: np.ndarray, texts: np.ndarray) -> int:
    """Return one of the `tied` labels: the first that is an answer of the `others`.

    `others` are the answers of the views that were not kept, by rising entropy. If there is none:
    the label with the highest mean inner product over all views, then the lowest. (There the public
    code takes the first remaining answer under a mask of wrong entries.)
    """
    decided = others[np.isin(others, tied)]
    if len(decided):
        return int(decided[0])
    means = (views.astype(np.float64) @ texts[tied].astype(np.float64).T).mean(0)
    return int(tied[means.argmax()])


METHOD = Zero()
