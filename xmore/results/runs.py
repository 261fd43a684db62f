"""Runs: one small file each, with the config, the snapshot read and the artifacts used."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xmore.config.benchmark import BenchmarkConfig
from xmore.files.code import code, version
from xmore.files.errors import RunError, cause_of, is_shortage, meant
from xmore.files.locks import is_locked, locked, read_locked
from xmore.files.paths import write_whole
from xmore.files.sealed import sealed
from xmore.store.artifacts import ArtifactRef, path_of
from xmore.store.contracts import RunFile, read_contract

log = logging.getLogger(__name__)

VERSIONS_OF = (
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
    snapshot: dict[str, Any] | None  # its name, digest and memory; None: a run without a memory
    started: str
    finished: str | None = None
    seconds: float | None = None
    error: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)  # commit, dirty; older runs: empty
    # by name: precision, batch_size, digest; older runs: empty, and their models computed in fp32
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
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
    def snapshot_name(self) -> str | None:
        """The name of the snapshot that it read; None for a run without a memory."""
        return self.snapshot["name"] if self.snapshot else None

    @property
    def read(self) -> str:
        """What it read, in words: `memory snapshot NAME`, or `no memory`."""
        return f"memory snapshot {self.snapshot_name}" if self.snapshot else "no memory"

    @property
    def trial(self) -> str:
        """` (limit 200)` for a trial run on so many images of each dataset, else empty."""
        limit = self.config.get("limit")
        return f" (limit {limit})" if limit else ""

    @property
    def status(self) -> str:
        """`completed`, `failed`, `running`, or `interrupted` if its process is gone."""
        if self.finished:
            return "completed"
        if self.error:
            return "failed"
        return "running" if is_locked(self.path / "run.lock") else "interrupted"

    def as_json(self) -> bytes:
        """Return the content of run.json; its paths are relative to the results folder."""
        data = asdict(self) | {"path": None}
        for record in data["artifacts"]:
            record["path"] = os.path.relpath(record["path"], self.results)
            if not record["left_out"]:
                del record["left_out"]
        return sealed(data)

    def save(self) -> None:
        """Write run.json atomically."""
        write_whole(self.path / "run.json", self.as_json())


def start_run(config: BenchmarkConfig, snapshot: dict[str, Any] | None) -> Run:
    """Create a run's folder, named after its config, its limit and the time in UTC."""
    now = datetime.now(UTC)
    trial = f"-limit{config.limit}" if config.limit else ""
    stem = f"{config.name}{trial}-{now:%Y%m%d-%H%M%S}"
    runs = config.results / "runs"
    with locked(runs / ".locks" / "start.lock"):
        _clear_unfinished(runs)
        path, n = runs / stem, 1
        while path.exists():
            n += 1
            path = runs / f"{stem}-{n}"
        run = Run(path, config.model_dump(mode="json"), snapshot, now.isoformat(timespec="seconds"))
        run.versions, run.code = versions(), dict(code())
        run.save()
    return run


def _clear_unfinished(runs: Path) -> None:
    """Delete what killed processes left: folders that are no runs yet, and temporary files."""
    for path in runs.glob("[!.]*"):
        if not is_locked(path / "run.lock"):
            for leftover in path.glob(".*.tmp"):
                leftover.unlink()
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def load_run(results: Path, name: str) -> Run:
    """Load a run by its name, or the newest of a config's name, or whose name begins with it.

    `latest` is the newest completed run; if there is none, the newest. Raises RunError.
    """
    if (path := results / "runs" / name / "run.json").is_file() and name:
        return read_run(path)
    runs = all_runs(results)
    if not runs:
        raise RunError(
            f"no runs in {results / 'runs'} yet. Start one with `xmore benchmark CONFIG`, or name "
            "the folder of its config's `results`: --results DIR."
        )
    if name == "latest":
        return ([run for run in runs if run.status == "completed"] or runs)[-1]
    matches = [run for run in runs if run.config["name"] == name]
    matches = matches or [run for run in runs if run.name.startswith(name)]
    if not matches:
        known = ["latest", *(run.config["name"] for run in runs), *(run.name for run in runs)]
        raise RunError(
            f"no run `{name}` in {results / 'runs'}.{meant(name, known)} `xmore runs` lists them; "
            "those of another results folder need --results DIR."
        )
    return matches[-1]


def all_runs(results: Path) -> list[Run]:
    """Return all readable runs, oldest first; of each other one, log a warning."""
    found = []
    for path in sorted((results / "runs").glob("*/run.json")):
        try:
            found.append(read_run(path))
        except RunError as error:
            log.warning("%s It is passed over.", error)
    return sorted(found, key=lambda run: (run.started, run.name))


def same_as_before(run: Run) -> Run | None:
    """Return an earlier completed run with the same config, snapshot and artifacts as `run`.

    How it was executed, and whether it was reported, plays no part. None if `run` made something.
    """
    if not all(ref.skipped for ref in run.artifacts):
        return None
    wanted = _identity(run)
    for other in reversed(all_runs(run.results)):
        if other.name != run.name and other.status == "completed" and _identity(other) == wanted:
            return other
    return None


def _identity(run: Run) -> list[Any] | None:
    try:
        config = config_of(run).model_dump(mode="json", exclude={"execution", "report", "results"})
    except RunError:
        return None
    return [config, run.snapshot, [(ref.dataset, ref.digest) for ref in run.artifacts]]


def config_of(run: Run) -> BenchmarkConfig:
    """Return the config of a run. Raises RunError if it is no longer valid."""
    try:
        return BenchmarkConfig.model_validate(run.config | {"results": run.results})
    except ValidationError as error:
        raise RunError(f"run `{run.name}`: its config is from another version.") from error


@contextmanager
def under_way(run: Run) -> Iterator[Callable[[ArtifactRef], None]]:
    """Mark `run` as running while this process lives, and record how it ends.

    Yields a function that records an artifact of this attempt at once. What an earlier attempt of
    the run has made stays recorded as made by it; a completed run of which nothing is missing keeps
    its time.
    """
    begun = time.perf_counter()  # unlike the clock, it is never set back
    with read_locked(gc_lock(run.results)), locked(run.path / "run.lock"):
        made = {ref.path: ref for ref in run.artifacts if not ref.skipped}
        ended = run.finished, run.seconds
        run.error, run.finished, run.artifacts, run.costs = None, None, [], []

        def record(ref: ArtifactRef) -> None:
            run.artifacts.append(_as_made(ref, made))
            run.save()

        try:
            yield record
        except Exception as error:  # a signal leaves no error: the run is interrupted
            run.error = f"{type(error).__name__}: {error}"
            with suppress(OSError):  # a full disk must not hide the original error
                run.save()
            raise
        nothing_new = all(ref.skipped for ref in run.artifacts)
        run.artifacts = [_as_made(ref, made) for ref in run.artifacts]
        if ended[0] and nothing_new:
            run.finished, run.seconds = ended
        else:
            run.finished = datetime.now(UTC).isoformat(timespec="seconds")
            run.seconds = round(time.perf_counter() - begun, 1)
        run.save()


def gc_lock(results: Path) -> Path:
    """Return the path of the lock that running benchmarks share, and that gc holds alone."""
    return results / "store" / ".locks" / "gc.lock"


def _as_made(ref: ArtifactRef, made: dict[str, ArtifactRef]) -> ArtifactRef:
    if not ref.skipped or ref.path not in made:
        return ref
    return replace(made[ref.path], prompt_set=ref.prompt_set)  # two sets may share an artifact


def read_run(path: Path) -> Run:
    """Read a run.json; keys of a newer version are passed over. Raises RunError."""
    try:
        data = read_contract(path, RunFile)
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise
        raise RunError(
            f"{path}: damaged, or of another version ({cause_of(error)}). Restore or remove it."
        ) from error
    path = path.absolute()  # as `views.sql` needs its
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
    """Return our version, and those of Python and of the packages that results depend on."""
    packages = {name: _version(name) for name in VERSIONS_OF}
    return packages | {"xmore": version()} | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
