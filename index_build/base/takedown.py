"""Take-down lists: what must leave the memory and may not come back."""

from __future__ import annotations

import re
from pathlib import Path

from xmore.files.errors import ConfigError
from xmore.files.paths import write_whole

KEPT = "taken-down.txt"  # in the memory: what the last re-index was told, for gc


def read_take_down(path: Path | None) -> list[str]:
    """URLs and sha256 digests (row_key, memory_key), a line each; `#` begins a comment.

    Raises ConfigError with the line's number.
    """
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: the take-down list cannot be read ({reason}).") from error
    values = []
    for number, line in enumerate(lines, 1):
        value = line.strip()
        if not value or value.startswith("#"):
            continue
        if re.fullmatch("[0-9A-Fa-f]{64}", value):
            value = value.lower()
        elif "://" not in value:
            raise ConfigError(
                f"{path}, line {number}: a take-down is a URL or 64 hexadecimal digits (row_key, "
                f"memory_key or sha256), got {value[:80]!r}."
            )
        values.append(value)
    return sorted(set(values))


def keep(memory: Path, values: list[str]) -> None:
    """Remember in the memory what was taken down."""
    path = memory / KEPT
    if values or path.exists():
        write_whole(path, "".join(f"{value}\n" for value in values).encode())


def kept(memory: Path) -> list[str]:
    """What the last re-index took down."""
    path = memory / KEPT
    return path.read_text().split() if path.exists() else []
