"""Files of neighbour texts, with which `coder` and `coder-rerank` compare an image.

JSONL, one text per line; docs/coder.md shows an example. Texts are untrusted: they are only
encoded, never executed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xmore.files.errors import ConfigError, meant
from xmore.files.paths import PROJECT_ROOT
from xmore.files.text import first_twice

FOLDER = PROJECT_ROOT / "data" / "neighbours"  # one file per dataset, by its name
Kind = Literal["synonym", "attribute", "analogue", "versus"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_CHARACTERS = 500  # per text: far more than a text model reads
MAX_LINE = 8192  # bytes
MAX_ROWS = 1_000_000


class Row(BaseModel):
    """A line of a file. `other` is the class from which a `versus` text distinguishes the class."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)

    class_name: str = Field(alias="class", min_length=1)
    kind: Kind
    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    other: str | None = None
    made_by: str = Field(min_length=1, max_length=200)

    @field_validator("text", "made_by")
    @classmethod
    def _is_a_text(cls, text: str) -> str:
        if not text.strip() or not text.isprintable():
            raise ValueError("must be one line of printable text")
        return text

    @model_validator(mode="after")
    def _other_belongs_to_versus(self) -> Self:
        if (self.kind == "versus") != (self.other is not None):
            raise ValueError("`other`, a class, belongs to each `versus` text and to no other kind")
        if self.other == self.class_name:
            raise ValueError(f"`other` must be another class than {self.class_name!r}")
        return self

    def line(self) -> str:
        """Return the row as a line of a file."""
        return json.dumps(self.model_dump(exclude_none=True), ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class NeighbourTexts:
    """The texts of C classes, by label; some may have none."""

    synonyms: list[list[str]]  # bare names, which are put into the class's prompts
    descriptions: list[list[str]]  # attributes and analogues, encoded unchanged
    versus: dict[tuple[int, int], list[str]]  # (c, o): texts that distinguish c from o

    @property
    def undescribed(self) -> int:
        """The number of classes without a description, which are scored by their names alone."""
        return sum(not texts for texts in self.descriptions)


def texts_file(given: Path | None, dataset: str) -> Path:
    """Return the file that a config names, or the dataset's own. Raises ConfigError if absent."""
    path = given or FOLDER / f"{dataset}.jsonl"
    if given is None and not path.is_file():
        raise ConfigError(
            f"`options.coder.texts`: no neighbour texts for `{dataset}`. Generate a file with "
            f"`xmore texts {dataset} --out FILE` and set this key to it."
        )
    return path


def read_texts(path: Path, class_names: Sequence[str]) -> NeighbourTexts:
    """Read the texts of `class_names`, in label order. Raises ConfigError for the first bad row.

    Classes that share a name share its texts. Memory: the complete file.
    """
    labels = defaultdict(list)
    for label, name in enumerate(class_names):
        labels[name].append(label)
    synonyms: list[list[str]] = [[] for _ in class_names]
    descriptions: list[list[str]] = [[] for _ in class_names]
    versus = defaultdict(list)
    first_lines: dict[tuple[str, str, str | None, str], int] = {}
    for number, row in read_rows(path):
        for named in (row.class_name, row.other):
            if named is not None and named not in labels:
                what = f"no class {named[:60]!r} in the dataset.{meant(named, labels)} Correct it"
                raise _bad(path, number, what)
        content = (row.class_name, row.kind, row.other, row.text)
        if first_lines.setdefault(content, number) != number:
            raise _bad(path, number, f"repeats line {first_lines[content]}; remove it")
        for label in labels[row.class_name]:
            if row.kind == "versus":
                for other in labels[str(row.other)]:
                    versus[label, other].append(row.text)
            else:
                (synonyms if row.kind == "synonym" else descriptions)[label].append(row.text)
    return NeighbourTexts(synonyms, descriptions, dict(versus))


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number, row) of each non-empty line. Raises ConfigError."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), 1):
                if len(line) > MAX_LINE:
                    raise _bad(path, number, f"is longer than {MAX_LINE} bytes; shorten it")
                if number > MAX_ROWS:
                    raise ConfigError(f"{path}: has more than {MAX_ROWS:,} lines; split it.")
                if line.strip():
                    yield number, _row(path, number, line)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Correct `options.coder.texts`."
        ) from error


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        data = json.loads(text, object_pairs_hook=_each_once)
        return Row.model_validate(data)
    except UnicodeDecodeError as error:
        raise _bad(path, number, f"is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except ValidationError as error:
        raise _bad(path, number, _complaint(error)) from error
    except (ValueError, RecursionError) as error:  # of json
        raise _bad(path, number, f"is not valid JSON ({error}); one object per line") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := first_twice([name for name, _ in pairs])) is not None:
        raise ValueError(f"the key `{twice[:60]}` is there twice")
    return dict(pairs)


def _complaint(error: ValidationError) -> str:
    """Return pydantic's first error, with the key as in the file."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key `{key}`; known keys: class, kind, text, other, made_by"
    if first["type"] == "missing":
        return f"key `{key}` is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{message[0].lower()}{message[1:]}"
    return f"`{key}`: {message[0].lower()}{message[1:]}, got {str(first['input'])[:60]!r}"


def _bad(path: Path, number: int, what: str) -> ConfigError:
    return ConfigError(f"{path}, line {number}: {what}.")
