"""The language of a caption, estimated from its letters."""

from __future__ import annotations

from functools import cache
from typing import Any


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a text's most likely language; often wrong for short texts."""
    return _identifier().classify(text)[0]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # slow: only when used

    return LanguageIdentifier.from_pickled_model(MODEL_FILE)
