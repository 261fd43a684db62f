"""Which language a caption is in, guessed from its letters."""

from __future__ import annotations

from functools import cache
from typing import Any


def language_of(text: str) -> str:
    """ISO 639-1 code of a text's likeliest language; short texts are often mistaken."""
    return _identifier().classify(text)[0]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # reads its model at first use

    return LanguageIdentifier.from_pickled_model(MODEL_FILE)
