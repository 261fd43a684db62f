"""Text files that others write, row by row: CSV, TSV, JSON lines, plain lines; also zipped.

Types are never guessed: a caption `007` stays as it is. A line that cannot be read is told by its
number and does not take the others with it.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from xmore.files.errors import DatasetError, first_line

SEPARATORS = {";": "`;`", "\t": "tabs", "|": "`|`"}  # of files that are called CSV, too
MAX_LINE = 1 << 20  # bytes of a line, and of a CSV record of several lines


class Record(NamedTuple):
    """A row of a text file, or what is wrong with it."""

    line: int  # from 1: of its first line
    values: dict[str, str | None]  # by column
    flaw: str = ""


def read_records(
    path: Path, kind: str, header: Sequence[str] = (), needed: Sequence[str] = ()
) -> Iterator[Record]:
    """Yield the rows of a text file; a value is None if it is empty.

    `header` names the columns of a file that does not. In JSON lines, columns differ by row, and a
    value of a `needed` column must be no list or object. Memory: one record. Raises DatasetError.
    """
    with _opened(path) as stream:
        lines = _Lines(stream)
        if kind == ".jsonl":
            yield from _json_records(lines, needed)
        elif kind == ".txt":
            yield from _plain_records(lines, header[0])
        else:
            yield from _separated_records(path, lines, kind, header, needed)


def read_header(path: Path, kind: str, header: Sequence[str] = ()) -> list[str]:
    """Return the columns of a text file, doubled names numbered as DuckDB does; [] for JSON lines.

    Raises DatasetError.
    """
    if kind == ".jsonl":
        return []
    if header or kind == ".txt":
        return distinct(header)
    with _opened(path) as stream:
        lines = _Lines(stream)
        return distinct(_header(path, lines, _splitter(lines, kind)))


def check_names(path: Path, wanted: Sequence[str], existing: Sequence[str]) -> None:
    """Raise DatasetError unless each of the `wanted` columns exists, once."""
    for name in wanted:
        if existing.count(name) != 1:
            what = f"two columns `{name}`" if name in existing else f"no column `{name}`"
            raise DatasetError(f"{path}: {what}; it has {', '.join(existing) or 'none'}.")


def distinct(names: Sequence[str]) -> list[str]:
    """Return column names that differ, in SQL too: the second `url` is `url_1`."""
    found: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(names):
        first = name or f"column{number}"
        candidate, times = first, 0
        while candidate.lower() in taken:
            times += 1
            candidate = f"{first}_{times}"
        taken.add(candidate.lower())
        found.append(candidate)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain) if zipped else plain as stream:  # type: ignore[attr-defined]
                yield cast(BinaryIO, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read ({first_line(error)}).") from error


class _Lines(Iterator[str]):
    """The lines of a file as text; those of the record at hand can be read once more."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.number = 0  # of the line read last
        self.record: list[tuple[str, str]] = []  # the lines of the record at hand, and their flaws
        self.again: list[tuple[str, str]] = []  # to be read again, the next one last
        self.size = 0  # of the record at hand

    def __next__(self) -> str:
        if self.size > MAX_LINE:
            raise csv.Error("a quotation mark is never closed")
        line = self.again.pop() if self.again else self._read()
        self.number += 1
        self.size += len(line[0])
        self.record.append(line)
        return line[0]

    @property
    def first(self) -> int:
        """The number of the record's first line."""
        return self.number - len(self.record) + 1

    @property
    def flaw(self) -> str:
        return next((flaw for _, flaw in self.record if flaw), "")

    def begin(self) -> None:
        """Begin a new record."""
        self.record, self.size = [], 0

    def only_first(self) -> str:
        """End the record after its first line, which is returned."""
        self.again += reversed(self.record[1:])
        self.number -= len(self.record) - 1
        del self.record[1:]
        return self.record[0][0]

    def _read(self) -> tuple[str, str]:
        raw = self.stream.readline(MAX_LINE)
        if not raw:
            raise StopIteration
        if self.number == 0:
            if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return "", "UTF-16, not UTF-8"
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
            while (rest := self.stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            return "", f"longer than {MAX_LINE:,} bytes"
        if b"\0" in raw:
            return "", "has NUL bytes"
        try:
            return raw.decode(), ""
        except UnicodeDecodeError:
            return raw.decode(errors="replace"), "not UTF-8"


def _splitter(lines: _Lines, kind: str) -> Callable[[], list[str] | None]:
    """Return what reads the values of one record; None at the end. It may raise csv.Error."""
    if kind == ".csv":
        reader = csv.reader(lines, strict=True)
        return lambda: next(reader, None)

    def split() -> list[str] | None:  # in TSV a quotation mark is an ordinary character
        line = next(lines, None)
        text = (line or "").rstrip("\r\n")
        return None if line is None else text.split("\t") if text else []

    return split


def _header(path: Path, lines: _Lines, split: Callable[[], list[str] | None]) -> list[str]:
    flaw = ""
    try:
        names = split()
        while names == [] and not lines.flaw:
            lines.begin()
            names = split()
    except csv.Error as error:
        names, flaw = [], str(error)
    if names is None:
        raise DatasetError(f"{path}: is empty. A first line with the columns' names is needed.")
    if flaw := lines.flaw or flaw:
        raise DatasetError(f"{path}: line {lines.first}, its header, cannot be read ({flaw}).")
    mark = next((mark for mark in SEPARATORS if len(names) == 1 and mark in names[0]), None)
    if mark:
        raise DatasetError(
            f"{path}: its header is separated by {SEPARATORS[mark]}. Save it with commas, or with "
            "tabs as .tsv."
        )
    return [name.strip() for name in names]


def _separated_records(
    path: Path, lines: _Lines, kind: str, header: Sequence[str], needed: Sequence[str]
) -> Iterator[Record]:
    split = _splitter(lines, kind)
    given = list(header) or _header(path, lines, split)
    check_names(path, needed, given)
    names = distinct(given)
    while True:
        lines.begin()
        flaw = ""
        try:
            values = split()
        except csv.Error as error:
            values, flaw = [], str(error)
        if values is None:
            return
        flaw = lines.flaw or flaw
        if not values and not flaw:
            continue  # an empty line
        if not flaw and len(values) != len(names):
            flaw = f"{len(values)} values in {len(names)} columns"
        elif not header and not flaw and [value.strip("\ufeff ") for value in values] == given:
            flaw = "repeats the header"  # of files that were joined
        if flaw:  # what a stray quotation mark took with it is read again, line by line
            values = _escaped(lines.only_first(), len(names)) if not lines.flaw else None
            if values is None:
                yield Record(lines.number, {}, flaw)
                continue
        texts = (value or None for value in values)
        yield Record(lines.first, dict(zip(names, texts, strict=True)))


def _escaped(line: str, columns: int) -> list[str] | None:
    r"""Return the values of a line that writes quotation marks as `\"`, as some programs do."""
    if '\\"' not in line:
        return None
    try:
        row = next(csv.reader([line], strict=True, doublequote=False, escapechar="\\"), [])
    except csv.Error:
        return None
    return row if len(row) == columns else None


def _plain_records(lines: _Lines, name: str) -> Iterator[Record]:
    for line in lines:
        if lines.flaw:
            yield Record(lines.number, {}, lines.flaw)
        elif text := line.strip():
            yield Record(lines.number, {name: text})
        lines.begin()


def _json_records(lines: _Lines, needed: Sequence[str]) -> Iterator[Record]:
    for line in lines:
        if lines.flaw or line.strip():
            try:
                values, flaw = ({}, lines.flaw) if lines.flaw else (_json_row(line, needed), "")
            except (ValueError, RecursionError) as error:
                values, flaw = {}, first_line(error)
            yield Record(lines.number, values, flaw)
        lines.begin()


def _json_row(line: str, needed: Sequence[str]) -> dict[str, str | None]:
    row = json.loads(line, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    if not isinstance(row, dict):
        raise ValueError("not an object of JSON")
    if len(row) > 1000:
        raise ValueError("more than 1,000 columns")
    for name in needed:
        if isinstance(row.get(name), list | dict):
            raise ValueError(f"`{name}` is a list or an object, not text")
    values = {name: _json_text(value) for name, value in row.items()}
    if "\\u" in line:
        "".join([*values, *filter(None, values.values())]).encode()  # half of a pair raises
    return dict(zip(distinct(list(values)), values.values(), strict=True))


class _Number(str):
    """A number as it is written."""


def _json_text(value: Any) -> str | None:
    if isinstance(value, str):
        return str(value) or None
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    return json.dumps(value, ensure_ascii=False)
