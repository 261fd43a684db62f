"""Take-down lists: rows that must leave the memory and may not come back."""

from __future__ import annotations

import re
from pathlib import Path

from xmore.files.errors import ConfigError
from xmore.files.paths import write_whole
from xmore.files.text import read_text

KEPT = "taken-down.txt"  # in the memory: the last re-index's take-downs, for gc


def read_take_down(path: Path | None) -> list[str]:
    """Read URLs and sha256 digests (row_key, memory_key), one per line; `#` begins a comment.

    Returns them sorted, each once. Raises ConfigError with the line's number.
    """
    if path is None:
        return []
    values = []
    for number, line in enumerate(read_text(path, ConfigError, "`take_down`").split("\n"), 1):
        value = line.strip()
        if not value or value.startswith("#"):
            continue
        if re.fullmatch("[0-9A-Fa-f]{64}", value):
            value = value.lower()
        elif "://" not in value:
            raise ConfigError(
                f"{path}, line {number}: a take-down must be a URL or 64 hexadecimal digits "
                f"(row_key, memory_key or sha256), got {value[:80]!r}."
            )
        values.append(value)
    return sorted(set(values))


def keep(memory: Path, values: list[str]) -> None:
    """Record the take-downs in the memory."""
    path = memory / KEPT
    if values or path.exists():
        write_whole(path, "".join(f"{value}\n" for value in values).encode())


def kept(memory: Path) -> list[str]:
    """Return the take-downs of the last re-index."""
    path = memory / KEPT
    return path.read_text().split() if path.exists() else []
