"""`coder-rerank`: `coder`, then a re-ranking if its two best classes are close."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.files.errors import ConfigError
from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)
from xmore.methods.coder.coder import Coder
from xmore.methods.coder.texts import read_texts, texts_file

if TYPE_CHECKING:
    from xmore.models.spec import ModelCard


class CoderRerank(Coder):
    """Re-ranks the top classes by the evidence of the texts that distinguish them in pairs.

    Only if the two best probabilities differ by less than tau, one value for all datasets. The
    public code has a hand-set value for each, and re-ranks only if the true label is among the top;
    here labels are unknown. The top's probabilities are reassigned, most to most evidence.
    """

    name = "coder-rerank"
    version = 1

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        super().check(request, model, class_names)
        path = texts_file(request.options.coder.texts, request.dataset)
        if not read_texts(path, class_names).versus:
            raise ConfigError(
                f"{path}: has no `versus` texts, so `coder-rerank` would equal `coder`. Add some, "
                "or remove `coder-rerank` from `methods`."
            )

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        options = request.options.coder
        own = {name: Setting(getattr(options, name), "fixed") for name in ("tau", "top")}
        return super().settings(request, variant) | dict(own)

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        options = request.options.coder
        return super().identity(request) | {"tau": options.tau, "top": options.top}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.coder.neighbours import pairs, reranked

        first, options = super().prepare(context), context.request.options.coder
        path = texts_file(options.texts, context.request.dataset)
        texts = read_texts(path, context.class_names)
        versus = pairs(texts, context.class_features, context.texts)

        def score(shard: QueryShard) -> np.ndarray:
            # In float32, as scores are stored: ties are then the same as those of `coder`.
            scores = first(shard).astype(np.float32)
            top = np.argsort(-scores, axis=1, kind="stable")[:, : options.top]
            best = np.take_along_axis(scores, top[:, :2], 1).astype(np.float64)
            close = np.flatnonzero(best[:, 0] - best[:, 1] < options.tau)
            evidence = versus.evidence(needed(shard.features)[close], top[close])
            scores[close] = reranked(scores[close], evidence, top[close])
            return scores.astype(np.float64)

        return score


METHOD = CoderRerank()
