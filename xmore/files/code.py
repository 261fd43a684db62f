"""Which code is running: our version, with the commit and whether files were changed since."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from functools import cache
from typing import TypedDict

from xmore.files.paths import PROJECT_ROOT, real

# What results depend on besides configs and data, which are recorded by themselves.
CODE = ("flows", "tasks", "index_build", "xmore", "pyproject.toml", "requirements.lock")


class Code(TypedDict):
    """The state of the checkout; nulls without git, as in an unpacked archive."""

    commit: str | None
    dirty: bool | None  # whether a file of the code differs from the commit, or is not in it


@cache
def code() -> Code:
    """Return the commit of the running code, and whether it was changed since."""
    try:
        # A folder inside another project's checkout has no commit of its own.
        if real(PROJECT_ROOT) != real(PROJECT_ROOT / _git("rev-parse", "--show-toplevel")):
            return {"commit": None, "dirty": None}
        commit = _git("rev-parse", "--verify", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", *CODE))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def version() -> str:
    """Return our version, such as `0.1.0+g61b4126a1c`, with `.dirty` if it was changed."""
    try:
        base = importlib.metadata.version("xmore")
    except importlib.metadata.PackageNotFoundError:
        base = "0"
    found = code()
    if not found["commit"]:
        return base
    return f"{base}+g{found['commit'][:10]}{'.dirty' if found['dirty'] else ''}"


def _git(*arguments: str) -> str:
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE"):  # as set for hooks: of another repository
        environment.pop(name, None)
    done = subprocess.run(
        ["git", "-C", str(PROJECT_ROOT), *arguments],
        capture_output=True, check=True, text=True, timeout=20, env=environment,
    )  # fmt: skip
    return done.stdout.strip()
