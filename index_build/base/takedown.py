"""Take-downs: rows that must leave a memory, and that do not come back by themselves.

    <memory>/take-downs.jsonl    one line per event, oldest first: added, or reinstated

A value is a URL, a row_key, or the sha256 of an image (memory_key). What a URL or a row_key takes
down is also taken down by the bytes of its image, under whatever URL: such a follower names the
value that it follows from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xmore.files.errors import ConfigError, SnapshotError
from xmore.files.paths import write_whole
from xmore.files.text import read_text

FILE = "take-downs.jsonl"
OLDER = "taken-down.txt"  # the list of an older version's last re-index


@dataclass(frozen=True)
class TakeDown:
    """A value that is taken down now."""

    value: str
    at: str  # UTC; empty if an older version took it down
    reason: str
    follows: str | None = None  # the value whose row's image has this sha256


def as_value(text: str) -> str:
    """Return a URL, or 64 hexadecimal digits in lower case. Raises ValueError."""
    if re.fullmatch("[0-9A-Fa-f]{64}", text):
        return text.lower()
    if "://" not in text:
        raise ValueError(
            "must be a URL or 64 hexadecimal digits (row_key, memory_key or sha256), got "
            f"{text[:80]!r}"
        )
    return text


def read_take_down(path: Path | None) -> list[str]:
    """Read a list of values, one per line; `#` begins a comment.

    Returns them sorted, each once. Raises ConfigError with the line's number.
    """
    if path is None:
        return []
    values = set()
    for number, line in enumerate(read_text(path, ConfigError, "`take_down`").split("\n"), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                values.add(as_value(text))
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: a take-down {error}.") from error
    return sorted(values)


def current(memory: Path) -> dict[str, TakeDown]:
    """Return what is taken down now, by value, oldest first. Raises SnapshotError."""
    path, older = memory / FILE, memory / OLDER
    lines = older.read_text().split() if older.exists() else []
    found = {value: TakeDown(value, "", "an older version's list") for value in lines}
    try:
        events = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        for event in (json.loads(line) for line in events if line):
            kind = event.pop("event")
            found.pop(event["value"], None)
            if kind == "added":
                found[event["value"]] = TakeDown(**event)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotError(
            f"{path}: cannot be read ({error}). Restore it: without it, rows come back."
        ) from error
    return found


def add(memory: Path, values: Iterable[str], reason: str, follows: str | None = None) -> list[str]:
    """Take values down; return those that were not, or only as a follower.

    Needs the memory's lock.
    """
    known = current(memory)
    named = {value for value, down in known.items() if follows or down.follows is None}
    new = [value for value in dict.fromkeys(values) if value not in named]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    _append(
        memory,
        [{"event": "added", **asdict(TakeDown(value, at, reason, follows))} for value in new],
    )
    return new


def reinstate(memory: Path, value: str) -> list[str]:
    """Let a value and its followers come back -> all of them. Needs the memory's lock.

    Raises SnapshotError if it is not taken down.
    """
    known = current(memory)
    if value not in known:
        raise SnapshotError(
            f"{memory}: {value} is not taken down. See `xmore memory takedown list {memory}`."
        )
    back = [value, *(down.value for down in known.values() if down.follows == value)]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    _append(memory, [{"event": "reinstated", "value": each, "at": at} for each in back])
    return back


def named(memory: Path) -> list[str]:
    """Return the values that were named, without their followers; sorted."""
    return sorted(value for value, down in current(memory).items() if down.follows is None)


def holds(snapshot: Path, values: Iterable[str]) -> int:
    """Return how many rows of a snapshot are taken down. Memory: one shard's keys."""
    wanted, count = pa.array(list(values), pa.string()), 0
    for path in sorted((snapshot / "metadata").glob("*.parquet")) if len(wanted) else ():
        names = [n for n in ("memory_key", "row_key", "url") if n in pq.read_schema(path).names]
        table = pq.read_table(path, columns=names, partitioning=None)
        marks = [pc.is_in(table[name], wanted) for name in names]
        for mark in marks[1:]:
            marks[0] = pc.or_(marks[0], mark)
        count += pc.sum(marks[0]).as_py() or 0
    return count


def _append(memory: Path, events: list[dict[str, str | None]]) -> None:
    if events:
        path = memory / FILE
        lines = "".join(json.dumps(event, sort_keys=True) + "\n" for event in events)
        write_whole(path, (path.read_bytes() if path.exists() else b"") + lines.encode())
