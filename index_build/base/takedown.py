"""Take-downs: rows that must leave a memory, and that do not come back by themselves.

    <memory>/take-downs.jsonl    one line per event, oldest first: added, or reinstated

A value is a URL, a row_key, or the sha256 of an image (memory_key). What a URL or a row_key takes
down is also taken down by the bytes of its image, under whatever URL: such a follower names the
value that it follows from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base.lines import read_lines, with_events
from index_build.base.metadata import whole_metadata
from index_build.base.web import encoded
from xmore.files.errors import ConfigError, SnapshotError, is_shortage
from xmore.files.paths import write_whole
from xmore.files.text import read_text

FILE = "take-downs.jsonl"
PLAIN = "[!-~]*"  # URLs that are requested as they are written
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
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^\0-\x1f\x7f]+", text):
        raise ValueError(
            "must be a URL or 64 hexadecimal digits (row_key, memory_key or sha256), got "
            f"{text[:80]!r}"
        )
    return text


def read_take_down(path: Path | None) -> list[str]:
    """Read a list of values, one per line.

    A `#` that begins a line or follows a space begins a comment. Returns them sorted, each once.
    Raises ConfigError with the line's number.
    """
    if path is None:
        return []
    values = set()
    for number, line in enumerate(read_text(path, ConfigError, "`take_down`").split("\n"), 1):
        text = re.split(r"(?:^|\s)#", line.strip(), maxsplit=1)[0].strip()
        if text:
            try:
                values.add(as_value(text))
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: a take-down {error}.") from error
    return sorted(values)


def current(memory: Path) -> dict[str, TakeDown]:
    """Return what is taken down now, by value, oldest first. Raises SnapshotError."""
    path, older = memory / FILE, memory / OLDER
    lines = older.read_bytes().decode().split("\n")[:-1] if older.exists() else []
    found = {value: TakeDown(value, "", "an older version's list") for value in lines}
    try:
        for event in read_lines(memory / FILE):
            kind = event.pop("event")
            found.pop(event["value"], None)
            if kind == "added":
                found[event["value"]] = TakeDown(**event)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if is_shortage(error):
            raise
        raise SnapshotError(
            f"{path}: cannot be read ({error}). Restore it: without it, rows come back. Or remove "
            f"the line, and add its value again: `xmore memory takedown add {memory} VALUE`."
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

    Raises SnapshotError if it never was taken down.
    """
    known = current(memory)
    if value not in known and value in (event["value"] for event in read_lines(memory / FILE)):
        return [value]  # it was let back, perhaps by a call that was killed before it said so
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


def requested(url: str) -> str:
    """Return a URL in the form by which take-downs are compared: as it is requested, if it is."""
    if re.fullmatch(PLAIN, url):
        return url
    try:
        return encoded(url)
    except ValueError:
        return url


def all_forms(values: Iterable[str]) -> dict[str, str]:
    """Return the forms of take-downs, with those in which their URLs are requested -> the value."""
    return {form: value for value in values for form in (value, requested(value))}


def holds(snapshot: Path, values: Iterable[str]) -> int:
    """Return how many rows of a snapshot are taken down. Memory: one shard's keys.

    Raises SnapshotError if its metadata are damaged.
    """
    forms, count = all_forms(values), 0
    wanted = pa.array(list(forms), pa.string())
    for path in whole_metadata(snapshot) if forms else ():
        schema = pq.read_schema(path)
        names = [n for n in ("memory_key", "row_key", "url") if n in schema.names]
        names = [name for name in names if pa.types.is_string(schema.field(name).type)]
        table = pq.read_table(path, columns=names, partitioning=None)
        columns = [table[name] for name in names]
        if "url" in names:
            # Only URLs that are requested otherwise than they are written need Python.
            urls = table["url"].combine_chunks()
            odd = pc.fill_null(pc.invert(pc.match_substring_regex(urls, f"^{PLAIN}$")), False)
            forms_of = pa.array(map(requested, urls.filter(odd).to_pylist()), pa.string())
            columns.append(pa.chunked_array([pc.replace_with_mask(urls, odd, forms_of)]))
        marks = [pc.is_in(column, wanted).to_numpy() for column in columns]
        count += int(np.logical_or.reduce(marks).sum()) if marks else 0
    return count


def _append(memory: Path, events: list[dict[str, str | None]]) -> None:
    if events:
        write_whole(memory / FILE, with_events(memory / FILE, events))
