"""Texts as SQL literals."""

from __future__ import annotations

from collections.abc import Iterable


def quote_all(texts: Iterable[object]) -> str:
    """Texts or paths as SQL literals, with commas between: for a list or an `in (...)`."""
    return ", ".join(quote(str(text)) for text in texts)


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
