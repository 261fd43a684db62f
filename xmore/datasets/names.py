"""Files of class names: one per line, or a folder, a tab and a name."""

from __future__ import annotations

import re
from pathlib import Path

from xmore.files.errors import XmoreError
from xmore.files.text import read_names, refuse_doubles, refuse_quotes

TODO = "Write only the names, one per line; or, in each line, a folder or number, a tab and a name."
_NUMBERED = re.compile(r"['\"]?([0-9]+)['\"]?\s*[\s:;,.)=-]\s*\S")
_WORDNET = re.compile(r"n[0-9]{8}\s")


def plain(name: str) -> str:
    """Return a class name for display and prompts: underscores become spaces."""
    return name.replace("_", " ").strip()


def read_classes(
    path: Path, kind: type[XmoreError], key: str, numbers: bool = False
) -> list[tuple[str, str]]:
    """Return the (folder or '', class name) of each line, as they are written.

    With `numbers`, a number in place of the folder is a label, and must be in order. Raises `kind`,
    also for a list in another format, each of whose lines would become a name.
    """
    rows = read_names(path, kind, key)
    columns = [[part.strip() for part in line.split("\t")] for _, line in rows]
    for (number, line), parts in zip(rows, columns, strict=True):
        if len(parts) != len(columns[0]) or len(parts) > 2:
            raise kind(
                f"{path}, line {number}: each line is a name, or each is a folder, one tab and a "
                f"name; got {line[:80]!r}."
            )
    if not rows or len(columns[0]) == 1:
        refuse_other_format(path, rows, kind)
        return [("", parts[0]) for parts in columns]
    folders = [(number, parts[0]) for (number, _), parts in zip(rows, columns, strict=True)]
    refuse_doubles(path, folders, kind)
    if numbers and all(re.fullmatch("[0-9]{1,9}", folder) for _, folder in folders):
        first = min(int(folders[0][1]), 1)
        for label, (number, folder) in enumerate(folders, first):
            if int(folder) != label:
                raise kind(
                    f"{path}, line {number}: its number should be {label}, got {folder}. Write the "
                    "names in the order of the labels."
                )
    return [(folder, name) for folder, name in columns]


def refuse_other_format(path: Path, rows: list[tuple[int, str]], kind: type[XmoreError]) -> None:
    """Raise `kind` if the lines of a list look like JSON or Python, or are numbered or quoted."""
    if len(rows) < 2:
        return
    first, lines = rows[0][0], [line for _, line in rows]
    if lines[0][0] in "[{" and lines[-1][-1] in "]}":
        raise kind(f"{path}, line {first}: looks like JSON or Python. {TODO}")
    refuse_quotes(path, rows, kind)
    if all(_WORDNET.match(line) for line in lines):
        raise kind(f"{path}, line {first}: every line begins with a WordNet id. {TODO}")
    for header in (0, 1):  # the first line may name columns
        found = [_NUMBERED.match(line) for line in lines[header:]]
        numbers = [int(match[1][:9]) if match else -1 for match in found]
        counted = range(numbers[0], numbers[0] + len(numbers))
        if len(numbers) > 1 and numbers[0] in (0, 1) and numbers == list(counted):
            where = f"{path}, line {rows[header][0]}"
            raise kind(f"{where}: every line begins with its number. {TODO}")
