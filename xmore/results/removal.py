"""Removal of runs, and of the artifacts that no run uses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xmore.files.errors import RunError
from xmore.files.locks import locked
from xmore.results.runs import gc_lock, read_run
from xmore.store.texts import TEXTS

FOLDER = re.compile(r"[0-9a-f]{64}(\.partial|\.broken-\d+)?")


@dataclass(frozen=True)
class Unused:
    """Artifacts that no run uses, damaged ones that were moved aside, parts of killed runs."""

    paths: list[Path]
    bytes: int


def remove_run(results: Path, name: str) -> None:
    """Remove a run's folder; its artifacts stay. Raises RunError, LockedError.

    Takes only a whole name: the beginning of one may be that of another run.
    """
    path = results / "runs" / name
    if Path(name).name != name or not (path / "run.json").is_file():
        raise RunError(
            f"no run `{name}` in {results / 'runs'}. Give its whole name, as `xmore runs` lists it."
        )
    with locked(path / "run.lock", refuse=f"run {name} is running. Stop it, or wait for its end."):
        (path / "run.json").unlink()  # what is left of a removal that was killed is no run
        shutil.rmtree(path)


def unused(results: Path) -> Unused:
    """Return what `collect` would delete. Raises RunError if a run cannot be read."""
    runs = [read_run(path) for path in sorted((results / "runs").glob("*/run.json"))]
    used = {ref.path for run in runs for ref in run.artifacts}
    whole = all(run.status == "completed" for run in runs)
    found = [
        path
        for path in _artifacts(results / "store")
        if str(path) not in used and (whole or path.suffix != ".partial")
    ]
    files = (file for path in found for file in path.rglob("*"))
    return Unused(found, sum(file.lstat().st_size for file in files if file.is_file()))


def collect(results: Path) -> Unused:
    """Delete the artifacts that no run uses.

    Parts that an unfinished run may resume, and the text store, are kept. Raises RunError if a run
    cannot be read, LockedError while a benchmark runs.
    """
    busy = f"{results}: a benchmark is running. Wait for it to end, then run gc."
    with locked(gc_lock(results), refuse=busy):
        found = unused(results)
        for path in found.paths:
            shutil.rmtree(path)
    return found


def _artifacts(store: Path) -> Iterator[Path]:
    """Yield the folders of all artifacts but the text store's, whole or not."""
    for path in sorted(store.glob("*/*/*")):
        if path.parts[-3] != TEXTS and FOLDER.fullmatch(path.name):
            yield path
