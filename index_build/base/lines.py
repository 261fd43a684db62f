"""Files of events: one JSON object a line, oldest first, each with its own checksum.

Lines of older versions have none, and are read as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xmore.files.sealed import is_whole, mended, sealed, unsealed


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return a file's events, none if it is absent. Raises OSError, or ValueError with the line."""
    events = []
    for number, line in _lines(path):
        try:
            events.append(dict(unsealed(line)))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return events


def with_events(path: Path, events: Iterable[dict[str, Any]]) -> bytes:
    """Return a file's content with more events at its end. Its own lines stay as they are."""
    old = path.read_bytes() if path.exists() else b""
    if old and not old.endswith(b"\n"):
        old += b"\n"
    return old + b"".join(sealed(event, indent=None) + b"\n" for event in events)


def damaged_lines(path: Path) -> list[int]:
    """Return the numbers, from 1, of the lines that are not as they were written."""
    return [number for number, line in _lines(path) if not _is_whole(line)]


def repaired(path: Path) -> tuple[bytes, list[int]]:
    """Return a file's content with its flipped bit put right, and the numbers of lines left out.

    If that is not what is wrong, all damaged lines are left out.
    """
    lines, numbers = path.read_bytes().split(b"\n"), damaged_lines(path)
    if not numbers:
        return path.read_bytes(), []
    first, last = numbers[0] - 1, numbers[-1]  # the bit may be that of an end of a line
    whole = mended(b"\n".join(lines[first:last]), _are_whole)
    if whole is not None:
        return b"\n".join([*lines[:first], whole, *lines[last:]]), []
    kept = [line for number, line in _lines(path) if number not in numbers]
    return b"".join(line + b"\n" for line in kept), numbers


def _lines(path: Path) -> list[tuple[int, bytes]]:
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip(b" \t\r")]


def _is_whole(line: bytes) -> bool:
    return line.startswith(b"{") and is_whole(line, indent=None)


def _are_whole(text: bytes) -> bool:
    lines = [line for line in text.split(b"\n") if line]
    return all(b'"checksum"' in line and _is_whole(line) for line in lines)
