"""Text features for stages: read from the text store, which encodes only new texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.stage import Workspace
from xmore.models.loaded import load_encoder
from xmore.models.spec import ModelCard
from xmore.store.texts import CaptionStore

if TYPE_CHECKING:
    from xmore.models.encoder import TextFeatures


class TextEncoder:
    """One model's text encoder; its weights are loaded only if a text is new."""

    def __init__(self, work: Workspace, model: ModelCard) -> None:
        self._work, self._model = work, model
        self._store = CaptionStore(work.store.root, model, work.execution.device)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of `texts`, in their order. Each distinct text is encoded once."""
        return self._store.features(texts, self._encode)

    def _encode(self, texts: list[str]) -> TextFeatures:
        encoder = load_encoder(self._model, self._work.device)
        from xmore.models.features import encode_texts

        return encode_texts(texts, encoder, self._work.batch_size(self._model))
