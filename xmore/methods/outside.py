"""Methods from outside: a user's file, or an installed package's entry point `xmore.methods`."""

from __future__ import annotations

import re
import sys
from functools import cache
from hashlib import sha256 as sha256_of
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from xmore.files.errors import ConfigError
from xmore.files.yaml import NAME
from xmore.methods.base import Method, Origin, Scorer
from xmore.methods.guard import blamed, guard
from xmore.methods.source import source_of

GROUP = "xmore.methods"  # an entry point is `NAME = "package.module:METHOD"`
SCORES = frozenset({"image_scores", "text_scores"})
INPUTS = frozenset({"query_embeddings", "pixels", "view_embeddings", "captions", "leaks"})


def is_file(spec: str) -> bool:
    """Return whether a config's entry names a file, not a method."""
    return spec.endswith(".py")


def digest_of_file(path: Path) -> str:
    """Return the sha256 of a method's file. Raises ConfigError."""
    return sha256_of(_read(path)).hexdigest()


def installed() -> dict[str, metadata.EntryPoint]:
    """Return the methods of installed packages by name; none is loaded."""
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


@cache
def from_file(spec: str, sha256: str) -> Method:
    """Load the METHOD of a file of these bytes, once a process. Raises XmoreError.

    The file is a module of its own: it can import what is installed, but no file beside it.
    """
    path = Path(spec)
    data = _read(path)
    if sha256_of(data).hexdigest() != sha256:
        raise ConfigError(f"{path}: was changed while the run read it. Start the run again.")
    origin = Origin(path)
    module = ModuleType(f"xmore_method_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{sha256[:12]}")
    module.__file__ = spec
    sys.modules[module.__name__] = module  # where pickle, dataclasses and inspect look
    with blamed(origin, "its import"):
        exec(compile(data, spec, "exec"), module.__dict__)
    if not hasattr(module, "METHOD"):
        raise ConfigError(f"{path}: has no METHOD. End it with `METHOD = YourMethod()`.")
    return _checked(module.METHOD, origin, f"{path}: METHOD")


@cache
def from_package(name: str) -> Method:
    """Load the method that an installed package names so, once a process. Raises XmoreError."""
    point = installed().get(name)
    if point is None:
        raise ConfigError(f"`methods`: no `{name}`: the package that had it is not installed here.")
    top = point.module.split(".")[0]
    where = find_spec(top)
    if where is None or where.origin is None:
        raise ConfigError(f"`methods`: `{name}` is in {point.module}, which is not installed.")
    with blamed(Origin(Path(where.origin), top), "its import"):
        found = point.load()
    origin = Origin(Path(str(sys.modules[point.module].__file__)), point.module)
    method = _checked(found, origin, f"{point.value} (entry point `{name}`)")
    if method.name != name:
        raise ConfigError(
            f"{point.value}: its name is `{method.name}`, but its entry point's is `{name}`."
        )
    return method


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. `methods` names it.") from error


def _checked(found: Any, origin: Origin, what: str) -> Method:
    """Return `found`, whose errors are then one line. Raises ConfigError if it is no method."""
    if isinstance(found, type) and issubclass(found, Method):
        raise ConfigError(f"{what} is a class. Make it an object: `METHOD = {found.__name__}()`.")
    if not isinstance(found, Method):
        raise ConfigError(
            f"{what} is a {type(found).__name__}. It must be an object of a class derived from "
            "xmore.methods.base.Method."
        )
    name, needs, version = (getattr(found, key, None) for key in ("name", "needs", "version"))
    if not isinstance(name, str) or not re.match(NAME, name) or is_file(name):
        raise ConfigError(f"{what}: `name` must be letters, digits, - . and _, got {name!r}.")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise ConfigError(f"{what}: `version` must be a whole number, got {version!r}.")
    known = INPUTS if isinstance(found, Scorer) else SCORES
    if not isinstance(needs, frozenset | set) or not needs or not needs <= known:
        raise ConfigError(
            f"{what}: `needs` must be a set of some of {', '.join(sorted(known))}, got {needs!r}."
        )
    guard(found, origin)
    source_of(found)  # now, as the file may change later
    return found
