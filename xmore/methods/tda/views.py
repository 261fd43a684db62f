"""`tda-views`: TDA on the mean of an image's confident augmented views, its 64-view form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    ScoringContext,
    Settings,
    Variant,
    needed,
)
from xmore.methods.confident_views import confident, view_settings
from xmore.methods.ordered import Evidence
from xmore.methods.tda.tda import Tda, evidence_of


class TdaViews(Tda):
    """`tda`, where v and z are means over the tenth of 64 augmented views of lowest entropy.

    H and p are of these views' mean probability. The mean feature is not normalised again. The
    paper has it for ImageNet-A, -V2, -R and -Sketch, with AugMix.
    """

    name = "tda-views"
    version = 1
    needs = frozenset({"view_embeddings"})

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        return super().settings(request, variant) | view_settings(request.options.views)

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return super().identity(request) | {"keep": request.options.views.keep}

    def evidence(self, context: ScoringContext) -> Callable[[QueryShard], Evidence]:
        from scipy.special import softmax

        keep, classes = context.request.options.views.keep, context.class_features
        tau = np.float32(context.tau)

        def read(shard: QueryShard) -> Evidence:
            features, logits, means = [], [], []
            for views in needed(shard.views):
                each = (tau * (views @ classes.T)).astype(np.float64)
                probabilities = softmax(each, axis=1)
                kept = confident(probabilities, keep)
                features.append(views[kept].mean(0))
                logits.append(each[kept].mean(0))
                means.append(probabilities[kept].mean(0))
            scores = softmax(np.stack(logits), axis=1)
            return evidence_of(np.stack(features), scores, np.stack(means))

        return read


METHOD = TdaViews()
