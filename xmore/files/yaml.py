"""YAML files, and their problems in one line that names the key."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from xmore.files.errors import ConfigError
from xmore.files.text import read_text

NAME = r"^[A-Za-z0-9][\w.-]*$"


class Section(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The keys of a YAML file, or the keys under one of them; unknown keys are refused.

    So are NaN and infinity, which compare with nothing and have no JSON.
    """


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values, and no key twice.

    PyYAML follows YAML 1.1: `no` is false, `007` is 7 and `12:30` is 750, which changes names. Here
    a number that would not be printed as it is written stays text; pydantic reads it as a number
    where one is expected.
    """

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in known if tag.rpartition(":")[2] in ("null", "merge")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a dictionary. Raises ConstructorError for a key that is there twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and isinstance(key, str) and key_node.tag != _MERGE:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` is there twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    text = str(loader.construct_scalar(node))
    value = float(text) if "." in text else int(text)
    return value if str(value) == text else text


_MERGE = "tag:yaml.org,2002:merge"
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
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where}: not valid YAML: {what}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must contain keys and values, got {type(data).__name__}.")
    return data


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return pydantic's first error as one sentence; for an unknown key, name the closest one."""
    complaints = error.errors()
    unknown = [c for c in complaints if c["type"] == "extra_forbidden"]
    first = (unknown or complaints)[0]  # a misspelt required key is also missing
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(kind, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, 1, 0.5)
        hint = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}."
        return f"unknown key `{key}`; {hint}"
    if first["type"] == "missing":
        return f"key `{key}` is missing; add it."
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{message}."
    if first["type"] == "value_error":
        return f"{key}: {message}."
    quotes = "; write it in quotes" if first["type"] == "string_type" else ""
    return f"`{key}`: {message[0].lower()}{message[1:]}, got {first['input']!r}{quotes}."


def _keys_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    fields = kind.model_fields
    for part in location:
        # Any other part is an item of a list or dictionary of sections: the keys stay the same.
        if part in fields and (section := _section(fields[str(part)].annotation)):
            fields = section.model_fields
    return list(fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model in a field's type: alone, in `Model | None`, a list or a dictionary."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
