"""`coder-rerank`: `coder`, and a second look where its two best classes are close."""

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
    """Of the top classes, the one whose differences from the others are seen most.

    Only where the two best probabilities differ by less than tau: one value for all datasets. The
    public code has one by hand for each, and looks again only where the true label is in the top;
    here nobody knows it. The top's probabilities are dealt out anew, most to most evidence.
    """

    name = "coder-rerank"

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        super().check(request, model, class_names)
        path = texts_file(request.options.coder.texts, request.dataset)
        if not read_texts(path, class_names).versus:
            raise ConfigError(
                f"{path}: has no `versus` texts, so that `coder-rerank` would be `coder`. Add some "
                "or take it out of `methods`."
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
        told_apart = pairs(texts, context.class_features, context.texts)

        def score(shard: QueryShard) -> np.ndarray:
            # As they are stored: where `coder`'s answer is a tie, so it is here.
            answered = first(shard).astype(np.float32)
            top = np.argsort(-answered, axis=1, kind="stable")[:, : options.top]
            best = np.take_along_axis(answered, top[:, :2], 1).astype(np.float64)
            close = np.flatnonzero(best[:, 0] - best[:, 1] < options.tau)
            evidence = told_apart.evidence(needed(shard.features)[close], top[close])
            answered[close] = reranked(answered[close], evidence, top[close])
            return answered.astype(np.float64)

        return score


METHOD = CoderRerank()
