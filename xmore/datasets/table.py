"""A table of test images: its paths and labels as text."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from xmore.files.errors import DatasetError
from xmore.files.tables import as_text, read_columns

# Of a class, as text: 007 is a name, and 1.0 is what pandas writes of a 1 in a column with gaps.
NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]{0,8}))(?:\.0)?")


def read_images(file: Path, path: str, label: str) -> list[tuple[str | None, str | None]]:
    """Return the values of the columns `path` and `label` of each row; a table is read whole.

    Raises DatasetError.
    """
    if not file.is_file():
        raise DatasetError(f"{file}: no such table. Correct `source.file`.")
    try:
        table, bad = read_columns(file, [path, label], ".csv")
    except DatasetError as error:
        raise DatasetError(f"{error} It cannot be read as a table of images.") from error
    if bad:
        raise DatasetError(f"{file}: {bad[0]}. Correct it; {len(bad)} lines cannot be read.")
    paths = as_text(table[path], f"{file}: column `{path}`", "null").to_pylist()
    labels = _label_texts(table[label], f"{file}: column `{label}`").to_pylist()
    texts = (None if text is None else text.strip() for text in labels)
    return list(zip(paths, (text or None for text in texts), strict=True))


def numbered(
    file: Path, labels: list[str | None], names: list[str] | None
) -> list[int | str | None]:
    """Return label texts as positions in `names`; those that are none stay, to be refused.

    Labels that are class names and numbers at once must mean the same. Raises DatasetError.
    """
    positions = {name: number for number, name in enumerate(names or [])}
    named = [None if label is None else positions.get(label, label) for label in labels]
    counted = [_as_number(label) for label in labels]
    by_name = all(isinstance(label, int) for label in named)
    by_number = all(isinstance(n, int) and 0 <= n < len(positions) for n in counted)
    if by_name and by_number and named != counted:
        row = next(i for i, label in enumerate(named) if label != counted[i])
        raise DatasetError(
            f"{file}: row {row}: label {labels[row]!r} is a class name, and the number of another "
            "class. Give the classes other names in the table and in `classes`."
        )
    return named if by_name or not all(isinstance(n, int) for n in counted) else counted


def _as_number(label: str | None) -> int | str | None:
    found = NUMBER.fullmatch(label) if label else None
    return int(found[1]) if found else label


def _label_texts(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return labels as texts: whole numbers, also those that became 1.0, and names."""
    kind = column.type
    if pa.types.is_floating(kind):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{where}: a label is no whole number ({error}).") from error
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return as_text(column, where, "null")
