"""Paths in a YAML file, which are relative to the folder of that file.

If a model is validated with `context={"base": folder}`, its relative paths are resolved against
that folder. Without a context they stay as they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

Value = TypeVar("Value")


def from_base(value: Value, info: ValidationInfo) -> Value | str:
    """Return a relative path as an absolute one; `~` is the user's home.

    Without a base in the context, return `value` unchanged. Raises ValueError for an unknown user.
    """
    base = (info.context or {}).get("base")
    if base is None or not isinstance(value, str):
        return value
    try:
        return os.path.normpath(base / Path(value).expanduser())
    except RuntimeError as error:  # a `~user` that does not exist
        raise ValueError(str(error)) from error


def _unless_url(value: str, info: ValidationInfo) -> str:
    return value if "://" in value else from_base(value, info)


AnchoredPath = Annotated[Path, BeforeValidator(from_base)]
"""A path, resolved against the context's base."""
AnchoredAddress = Annotated[str, AfterValidator(_unless_url)]
"""Such a path, or an address with a scheme, which stays as it is."""
