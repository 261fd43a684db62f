"""YAML files, and their problems in one line that names the key."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from xmore.files.errors import ConfigError, cause_of, meant
from xmore.files.text import read_text

NAME = r"^[A-Za-z0-9][\w.-]*$"
MAX_VALUES = 1_000_000  # of a file: aliases of aliases repeat without end
_SHOWN = reprlib.Repr()  # of a wrong value, which may be long or contain itself
_SHOWN.maxstring = _SHOWN.maxother = 200


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The keys of a YAML file, or the keys under one of them; unknown keys are refused.

    So are NaN and infinity, which compare with nothing and have no JSON.
    """


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values, keys that are text, and no key twice.

    PyYAML follows YAML 1.1: `no` is false, `007` is 7 and `12:30` is 750, which changes names. Here
    a number that would not be printed as it is written stays text; pydantic reads it as a number
    where one is expected. Of the keys 1, 1.0 and true, Python would keep one.
    """

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in known if tag.rpartition(":")[2] in ("null", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Compose a mapping, whose keys are text. Raises ComposerError for a key there twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            key.tag = _TEXT
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"the key `{key.value}` is there twice", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Construct a text; `\\ud83d\\ude00`, as JSON writes it, is one character.

        Raises ConstructorError for a half of one, which no file can hold, and for a null.
        """
        text = super().construct_scalar(node)
        if isinstance(text, str) and _HALVES.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if isinstance(text, str) and ("\0" in text or _HALVES.search(text)):
            what = "the control character \\0, or half of a character, is in a text"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return text


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    text = str(loader.construct_scalar(node))
    value = float(text) if "." in text else int(text)
    return value if str(value) == text else text


_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
_HALVES = re.compile("[\ud800-\udfff]")  # of a character beyond 16 bits
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("!number", re.compile(r"^-?\d+(?:\.\d+)?$"), list("-0123456789"))
_Loader.add_constructor("!number", _number)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises ConfigError if it cannot be read or is no mapping."""
    try:
        data = yaml.load(read_text(path, ConfigError), _Loader)
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:  # PyYAML's own constructors raise all of these
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        said = [getattr(error, part, None) for part in ("context", "problem")]
        what = ": ".join(filter(None, said)) or cause_of(error)
        raise ConfigError(f"{path}{where}: not valid YAML: {what}.") from error
    if data is None:
        raise ConfigError(f"{path}: is empty. Write keys and values; configs/ has examples.")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must contain keys and values, got {type(data).__name__}.")
    if not _ends(data):
        raise ConfigError(
            f"{path}: has more than {MAX_VALUES:,} values, or an alias that contains itself. Write "
            "out what its aliases (`*name`) stand for."
        )
    return data


def yaml_value(text: str) -> Any:
    """Read one YAML value, such as `[1, 4]` or `exact`. Raises ValueError for what is none."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"not valid YAML: {cause_of(error)}") from error


_END = object()


def _ends(data: dict[str, Any]) -> bool:
    """Return whether a file has no more than MAX_VALUES values, each alias counted as it is used.

    Else it would fill the memory, or a value would contain itself.
    """
    todo: list[Iterator[Any]] = [iter([data])]
    count = 0
    while todo:
        value = next(todo[-1], _END)
        if value is _END:
            todo.pop()
            continue
        count += 1
        if count > MAX_VALUES:
            return False
        if isinstance(value, dict):
            todo.append(iter(value.values()))
        elif isinstance(value, list | tuple | set):
            todo.append(iter(value))
    return True


def flat(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested sections with its key, as in `retrieval.candidates`."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return pydantic's first error as one sentence; for an unknown key, name the closest one."""
    complaints = error.errors()
    unknown = [c for c in complaints if c["type"] == "extra_forbidden"]
    first = (unknown or complaints)[0]  # a misspelt required key is also missing
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(kind, first["loc"][:-1])
        hint = meant(str(first["loc"][-1]), known) or f" Known keys: {', '.join(known)}."
        return f"unknown key `{key}`.{hint}"
    if first["type"] == "missing":
        return f"key `{key}` is missing; add it."
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{message}."
    if first["type"] == "value_error":
        return f"{key}: {message}."
    quotes = "; write it in quotes" if first["type"] == "string_type" else ""
    return f"`{key}`: {message[0].lower()}{message[1:]}, got {_SHOWN.repr(first['input'])}{quotes}."


def _keys_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    fields = kind.model_fields
    for part in location:
        # Any other part is an item of a list or dictionary of sections: the keys stay the same.
        if part in fields and (section := _section(fields[str(part)].annotation)):
            fields = section.model_fields
    return list(fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model in a field's type: alone, or in unions, lists and dictionaries."""
    kinds = get_args(annotation)
    if not kinds:
        is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return annotation if is_model else None
    return next(filter(None, map(_section, kinds)), None)
