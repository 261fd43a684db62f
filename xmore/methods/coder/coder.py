"""`coder`: class scores from similarities to many texts per class (Yi et al. 2024)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.files.digests import digest_file
from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)
from xmore.methods.coder.texts import read_texts, texts_file

if TYPE_CHECKING:
    from xmore.models.spec import ModelCard


class Coder(Scorer):
    """The first stage: the mean over attributes, analogues and the nearest of the class's names.

    A class without such texts is scored by its names alone, and without synonyms by its own name.
    The number of texts of a class does not matter, as each class has its own mean.
    """

    name = "coder"
    version = 1
    needs = frozenset({"query_embeddings"})

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        path = texts_file(request.options.coder.texts, request.dataset)
        bare = read_texts(path, class_names).undescribed
        if bare:
            logging.warning(
                "%s: %d of %d classes of `%s` have no attribute or analogue; `%s` scores them by "
                "their names alone",
                *(path, bare, len(class_names), request.dataset, self.name),
            )

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        given = request.options.coder.texts
        return {"texts": Setting(given.name if given else f"{request.dataset}.jsonl", "fixed")}

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        return {"texts": digest_file(texts_file(request.options.coder.texts, request.dataset))}

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from scipy.special import softmax

        from xmore.methods.coder.neighbours import neighbours

        request = context.request
        texts = read_texts(
            texts_file(request.options.coder.texts, request.dataset), context.class_names
        )
        around = neighbours(texts, context.class_names, context.prompts, context.texts)

        def score(shard: QueryShard) -> np.ndarray:
            logits = np.float32(context.tau) * around.similarities(needed(shard.features))
            return softmax(logits.astype(np.float64), axis=1)

        return score


METHOD = Coder()
