"""Texts as SQL literals."""

from __future__ import annotations

from collections.abc import Iterable


def quote_all(texts: Iterable[object]) -> str:
    """Return texts or paths as comma-separated SQL literals: for a list or an `in (...)`."""
    return ", ".join(quote(str(text)) for text in texts)


def quote(text: str) -> str:
    """Return `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
