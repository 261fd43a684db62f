"""Runs: one small file each, with the config, the snapshot read and the artifacts used."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xmore.config.benchmark import BenchmarkConfig
from xmore.files.errors import RunError, cause_of
from xmore.files.locks import is_locked, locked
from xmore.files.paths import write_whole
from xmore.store.artifacts import ArtifactRef, path_of
from xmore.store.contracts import RunFile, read_contract, sealed

log = logging.getLogger(__name__)

VERSIONS_OF = (
    "xmore",
    "torch",
    "open_clip_torch",
    "timm",
    "transformers",
    "numpy",
    "pyarrow",
    "faiss-cpu",
    "autofaiss",
    "prefect",
)


@dataclass
class Run:
    """results/runs/<name>/run.json."""

    path: Path
    config: dict[str, Any]
    snapshot: dict[str, Any]
    started: str
    finished: str | None = None
    seconds: float | None = None
    error: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    artifacts: list[ArtifactRef] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(
        default_factory=list
    )  # one entry per method: `xmore.results.costs`

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def results(self) -> Path:
        """The results folder that the run lies in now; it may have been moved."""
        return self.path.parents[1]

    @property
    def status(self) -> str:
        """`completed`, `failed`, `running`, or `interrupted` if its process is gone."""
        if self.finished:
            return "completed"
        if self.error:
            return "failed"
        return "running" if is_locked(self.path / "run.lock") else "interrupted"

    def save(self) -> None:
        """Write run.json atomically; its paths are relative to the results folder."""
        data = asdict(self) | {"path": None}
        for record in data["artifacts"]:
            record["path"] = os.path.relpath(record["path"], self.results)
        write_whole(self.path / "run.json", sealed(data))


def start_run(config: BenchmarkConfig, snapshot: dict[str, Any]) -> Run:
    """Create a run's folder, named after its config and the time in UTC."""
    now = datetime.now(UTC)
    stem = f"{config.name}-{now:%Y%m%d-%H%M%S}"
    runs = config.results / "runs"
    path, n = runs / stem, 1
    while True:
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            n += 1
            path = runs / f"{stem}-{n}"
    run = Run(path, config.model_dump(mode="json"), snapshot, now.isoformat(timespec="seconds"))
    run.versions = versions()
    run.save()
    return run


def load_run(results: Path, name: str) -> Run:
    """Load a run by its name, or the newest of a config's name, or whose name begins with it.

    `latest` is the newest completed run; if there is none, the newest. Raises RunError.
    """
    if (path := results / "runs" / name / "run.json").is_file() and name:
        return _read(path)
    runs = all_runs(results)
    if not runs:
        raise RunError(
            f"no runs in {results / 'runs'} yet. Start one with `xmore benchmark CONFIG`."
        )
    if name == "latest":
        return ([run for run in runs if run.status == "completed"] or runs)[-1]
    matches = [run for run in runs if run.config["name"] == name]
    matches = matches or [run for run in runs if run.name.startswith(name)]
    if not matches:
        raise RunError(f"no run `{name}` in {results / 'runs'}. `xmore runs` lists them.")
    return matches[-1]


def all_runs(results: Path) -> list[Run]:
    """Return all readable runs, oldest first; of each other one, log a warning."""
    found = []
    for path in sorted((results / "runs").glob("*/run.json")):
        try:
            found.append(_read(path))
        except RunError as error:
            log.warning("%s It is passed over.", error)
    return sorted(found, key=lambda run: (run.started, run.name))


def config_of(run: Run) -> BenchmarkConfig:
    """Return the config of a run. Raises RunError if it is no longer valid."""
    try:
        return BenchmarkConfig.model_validate(run.config | {"results": run.results})
    except ValidationError as error:
        raise RunError(f"run `{run.name}`: its config is from another version.") from error


@contextmanager
def under_way(run: Run) -> Iterator[None]:
    """Mark `run` as running while this process lives, and record how it ends."""
    begun = time.perf_counter()  # unlike the clock, it is never set back
    with locked(run.path / "run.lock"):
        run.error, run.finished, run.artifacts, run.costs = None, None, [], []
        try:
            yield
        except Exception as error:  # a signal leaves no error: the run is interrupted
            run.error = f"{type(error).__name__}: {error}"
            with suppress(OSError):  # a full disk must not hide the original error
                run.save()
            raise
        run.finished = datetime.now(UTC).isoformat(timespec="seconds")
        run.seconds = round(time.perf_counter() - begun, 1)
        run.save()


def _read(path: Path) -> Run:
    """Read run.json; keys of a newer version are passed over. Raises RunError."""
    try:
        data = read_contract(path, RunFile)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: damaged, or of another version ({cause_of(error)}). Restore or remove it."
        ) from error
    data["artifacts"] = [_located(record, path.parents[2]) for record in data["artifacts"]]
    return Run(**{key: data[key] for key in _keys(Run) & data.keys()} | {"path": path.parent})


def _keys(kind: type) -> set[str]:
    return {each.name for each in fields(kind)}


def _located(record: dict[str, Any], results: Path) -> ArtifactRef:
    """Return an artifact as it lies in `results` now, whatever path the run has recorded."""
    place = path_of(results / "store", record["stage"], record["dataset"], record["digest"])
    known = {key: record[key] for key in _keys(ArtifactRef) & record.keys()}
    return ArtifactRef(**known | {"path": str(place)})


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    packages = {name: _version(name) for name in VERSIONS_OF}
    return packages | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
