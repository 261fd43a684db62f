"""Paths in a YAML file: relative to the folder of that file.

Whoever validates a model with `context={"base": folder}` gets its relative paths made absolute from
there; without a context they stay as they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

Value = TypeVar("Value")


def from_base(value: Value, info: ValidationInfo) -> Value | str:
    """A relative path made absolute; `~` is the user's home."""
    base = (info.context or {}).get("base")
    if base is None or not isinstance(value, str):
        return value
    try:
        return os.path.normpath(base / Path(value).expanduser())
    except RuntimeError as error:  # a `~user` that is none
        raise ValueError(str(error)) from error


def _unless_url(value: str, info: ValidationInfo) -> str:
    return value if "://" in value else from_base(value, info)


AnchoredPath = Annotated[Path, BeforeValidator(from_base)]
"""A path."""
AnchoredAddress = Annotated[str, AfterValidator(_unless_url)]
"""A path, or an address with a scheme, which stays as it is."""
