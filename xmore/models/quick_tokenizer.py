"""open_clip's own tokenizer, made fast: the same tokens for any text.

Plain text passes by ftfy, which leaves it as it is; the tokens of words that were seen are kept;
new words are merged by the `tokenizers` library. Words are found by open_clip's own expression, as
the library's differs from it on newer alphabets, and on letters that differ in case alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from open_clip import SimpleTokenizer
from open_clip import tokenizer as theirs
from tokenizers.models import BPE

PLAIN = re.compile(r"[\t\n -%'-~]*")  # printable ASCII, but no `&`: it has no HTML, nothing to mend
KEPT_WORDS, LONGEST = 1 << 18, 32  # at most 60 MB


def quick(tokenizer: Any) -> Any:
    """Return a tokenizer of open_clip's as a fast one; any other kind as it is."""
    plain = type(tokenizer) is SimpleTokenizer and tokenizer.reduction_fn is None
    return QuickTokenizer(tokenizer) if plain else tokenizer


class QuickTokenizer:
    """Gives what a SimpleTokenizer of open_clip's gives. Memory: 60 MB of words."""

    def __init__(self, slow: SimpleTokenizer) -> None:
        self.context_length = slow.context_length
        self._slow = slow
        self._special = {text: [slow.encoder[text]] for text in slow.cache if text in slow.encoder}
        merges = sorted(slow.bpe_ranks, key=slow.bpe_ranks.__getitem__)
        self._bpe = BPE(slow.encoder, merges, end_of_word_suffix="</w>")
        self._letters = "".join(slow.byte_encoder[i] for i in range(256))
        self._words: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> torch.Tensor:
        """Return the tokens of N texts, (N, context_length) int64, cut and padded with 0."""
        length = context_length or self.context_length
        first, last = self._slow.sot_token_id, self._slow.eot_token_id
        flat: list[int] = []
        ends = []
        for text in texts:
            flat.append(first)
            flat += self.encode(text)[: length - 2]
            flat.append(last)
            ends.append(len(flat))
        counts = np.diff(ends, prepend=0)
        tokens = np.zeros((len(texts), length), np.int64)
        tokens[np.arange(length) < counts[:, None]] = flat
        return torch.from_numpy(tokens)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without those that frame it."""
        if self._slow.clean_fn is theirs._clean_lower and PLAIN.fullmatch(text):
            text = " ".join(text.split()).lower()
        else:
            text = self._slow.clean_fn(text)
        tokens: list[int] = []
        kept = self._words
        for word in self._slow.pat.findall(text):
            tokens += kept.get(word) or self._tokens_of(word)
        return tokens

    def _tokens_of(self, word: str) -> list[int]:
        letters = word.encode().decode("latin-1").translate(self._letters)
        tokens = self._special.get(letters) or [each.id for each in self._bpe.tokenize(letters)]
        if len(word) <= LONGEST:
            if len(self._words) >= KEPT_WORDS:
                self._words.clear()
            self._words[word] = tokens
        return tokens
