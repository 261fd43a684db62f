"""YAML files, and their problems in one line that names the key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from xmore.files.errors import ConfigError

NAME = r"^[A-Za-z0-9][\w.-]*$"


class Section(BaseModel, frozen=True, extra="forbid"):
    """The keys of a YAML file, or the keys under one of them; unknown keys are refused."""


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises ConfigError if it cannot be read or is no mapping."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
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
        raise ConfigError(f"{path}{where}: not valid YAML ({what}).") from error
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
    return f"`{key}`: {message[0].lower()}{message[1:]}, got {first['input']!r}."


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
