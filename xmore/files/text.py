"""Text to show, and text files that name things: classes, prompts, take-downs."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xmore.files.errors import XmoreError

QUOTED = re.compile(r"(['\"]).*\1,?")
CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of characters that end or break a line


def visible(text: str, but: str = "") -> str:
    """Replace characters that act on a terminal (control and direction), all `but` some."""
    return "".join(c if c.isprintable() or c in but else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_twice(names: Sequence[str]) -> str | None:
    """Return the first name that is there twice, None if there is none."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def read_text(path: Path, kind: type[XmoreError], key: str = "the path") -> str:
    """Return the text of a UTF-8 file, without byte order mark, its lines separated by `\\n`.

    Raises `kind`, with the line's number where it is not UTF-8; `key` names the path's origin.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise kind(f"{path}, line {number}: not UTF-8. Save the file as UTF-8.") from error
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        what = getattr(error, "strerror", None) or error
        raise kind(f"{path}: cannot be read ({what}). Correct {key}.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_names(path: Path, kind: type[XmoreError], key: str) -> list[tuple[int, str]]:
    """Return (line number, line) of a file with one name per line, without surrounding spaces.

    Lines `# ...` above the first name are comments; below it, `#` is a part of a name. Raises
    `kind` for a blank line between names, as labels would shift, and for control characters.
    """
    lines = [line.strip() for line in read_text(path, kind, key).rstrip().split("\n")]
    named = [i for i, line in enumerate(lines, 1) if not re.match(r"#(\s|$)", line)]
    first = named[0] if named and lines != [""] else len(lines) + 1
    rows = [(number, line) for number, line in enumerate(lines, 1) if number >= first]
    for number, line in rows:
        if not line:
            raise kind(f"{path}, line {number}: is blank. Remove it: each line is one name.")
        broken = [c for c in line if unicodedata.category(c) in CONTROL and c != "\t"]
        if broken:
            raise kind(
                f"{path}, line {number}: contains the control character {broken[0]!r}. Remove it."
            )
    return rows


def refuse_doubles(path: Path, rows: list[tuple[int, str]], kind: type[XmoreError]) -> None:
    """Raise `kind` if a name stands in two lines."""
    lines: dict[str, int] = {}
    for number, name in rows:
        if lines.setdefault(name, number) != number:
            raise kind(f"{path}, line {number}: {name!r} repeats line {lines[name]}. Remove one.")


def refuse_quotes(path: Path, rows: list[tuple[int, str]], kind: type[XmoreError]) -> None:
    """Raise `kind` if each of several lines is in quotes, as in a list of Python's or a CSV."""
    if len(rows) > 1 and all(QUOTED.fullmatch(line) for _, line in rows):
        raise kind(f"{path}, line {rows[0][0]}: every line is in quotes. Remove them.")
