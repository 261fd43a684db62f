"""JSON with a `checksum` of its other values, so that no flipped bit in it is believed.

Files of older versions lack it, and are read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xmore.files.digests import digest_of
from xmore.files.errors import is_shortage

CHECKSUM = "checksum"
MOST_MENDED = 10_000  # bytes
DIFFERS = "its content differs from its checksum"


def sealed(data: dict[str, Any], indent: int | None = 1) -> bytes:
    """Return JSON with its checksum; values that JSON lacks become text."""
    plain = json.loads(json.dumps(data, default=str))
    text = json.dumps(plain | {CHECKSUM: digest_of(plain)}, indent=indent, sort_keys=True)
    return text.encode()


def unsealed(text: bytes | str) -> Any:
    """Return the content of JSON without its checksum. Raises ValueError if they differ."""
    data = json.loads(text)
    if isinstance(data, dict):
        if data.pop(CHECKSUM, None) not in (None, digest_of(data)):
            raise ValueError(DIFFERS)
        if any(_is_near(key) for key in data):  # the flipped bit is in this word
            raise ValueError(DIFFERS)
    return data


def is_as_written(text: bytes | str, indent: int | None = 1) -> bool:
    """Return whether JSON is as `sealed` wrote it, to the byte; True if it has no checksum.

    Content may stay the same where a bit flips, as from `1e-05` to `1E-05`.
    """
    try:
        has_checksum = CHECKSUM in json.loads(text)
        raw = text if isinstance(text, bytes) else text.encode()
        return not has_checksum or sealed(unsealed(text), indent) == raw
    except (ValueError, TypeError, RecursionError):
        return False


def is_whole(text: bytes, indent: int | None = 1) -> bool:
    """Return whether JSON is as `sealed` wrote it, or of an older version."""
    try:
        unsealed(text)
    except (ValueError, RecursionError):
        return False
    return is_as_written(text, indent)


def is_whole_json(path: Path) -> bool:
    """Return whether a file is JSON as `sealed` wrote it, or of an older version."""
    try:
        return is_whole(path.read_bytes())
    except OSError as error:
        if is_shortage(error):
            raise
        return False


def mended(text: bytes, judge: Callable[[bytes], bool] = is_whole) -> bytes | None:
    """Return sealed JSON with its one flipped bit put right; None if that is not what is wrong.

    Takes seconds for 10 kB, so longer texts are not tried.
    """
    data = bytearray(text)
    for place in range(8 * len(data) if len(data) <= MOST_MENDED else 0):
        data[place // 8] ^= 1 << place % 8
        if b'"checksum"' in data and judge(bytes(data)):
            return bytes(data)
        data[place // 8] ^= 1 << place % 8
    return None


def _is_near(key: str) -> bool:
    if len(key) != len(CHECKSUM):
        return False
    return sum(a != b for a, b in zip(key, CHECKSUM, strict=True)) == 1
