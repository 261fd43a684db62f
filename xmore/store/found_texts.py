"""The features of texts that are asked for, as they are found one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xmore.store.text_parts import text_keys

if TYPE_CHECKING:
    from xmore.models.encoder import TextFeatures


class FoundTexts:
    """The distinct ones of some texts, their sha256, and their features as far as they are found.

    Memory: the features of the distinct texts; once more if texts were repeated.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        self.texts = list(numbers)
        self.keys = text_keys(numbers)  # (n, KEY) uint8
        self._asked = np.array([numbers[text] for text in texts], np.int64)
        self._have = np.zeros(len(numbers), bool)
        self._unit: np.ndarray | None = None
        self._norm = np.empty(len(numbers), np.float32)
        self._truncated = np.empty(len(numbers), bool)

    @property
    def missing(self) -> np.ndarray:
        """The ascending positions, in `texts`, of those that were not found yet."""
        return np.flatnonzero(~self._have)

    def put(
        self, which: np.ndarray, unit: np.ndarray, norm: np.ndarray, truncated: np.ndarray
    ) -> None:
        """Take the features of the texts at (n,) positions: (n, D), (n,) and (n,)."""
        if not len(which):
            return
        if self._unit is None:
            self._unit = np.empty((len(self.texts), unit.shape[1]), np.float32)
        self._unit[which] = unit
        self._norm[which], self._truncated[which] = norm, truncated
        self._have[which] = True

    def features(self) -> TextFeatures:
        """Return the features of all texts that were asked for, in order; all must be found."""
        from xmore.models.encoder import TextFeatures  # torch

        unit = np.zeros((0, 0), np.float32) if self._unit is None else self._unit
        if len(self._asked) == len(self.texts):
            return TextFeatures(unit, self._norm, self._truncated)
        at = self._asked
        return TextFeatures(unit[at], self._norm[at], self._truncated[at])
