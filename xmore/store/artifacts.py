"""Artifacts: immutable directories of Parquet, addressed by their inputs and parameters.

    <root>/<stage>/<dataset>/<digest>/part-00000.parquet ... manifest.json, cost.json

A stage's parts are committed one by one in `<digest>.partial/`, under a lock. The manifest there
names the complete ones, so a killed run is resumed and not repeated. A final rename publishes the
artifact. Only this module writes Parquet artifacts, and only it decides which are complete.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import digest_file, digest_of
from xmore.files.errors import ArtifactError
from xmore.files.locks import locked
from xmore.files.paths import fsync_dir, fsync_file, write_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed
from xmore.store import schemas
from xmore.store.checks import DIFFERS, MANIFEST, check_once, is_whole, read_manifest
from xmore.store.cost import COST, Meter
from xmore.store.made_by import made_by, warn_if_edited, warn_if_other

log = logging.getLogger(__name__)

MAX_PART_BYTES = 64 << 20  # uncompressed; a part is one row group and the unit of retry


@dataclass(frozen=True)
class ArtifactKey:
    """The inputs and parameters of an artifact; equal keys mean equal content."""

    stage: str
    dataset: str
    params: dict[str, Any]  # the stage's own part of the config, model identities
    inputs: tuple[str, ...] = ()  # digests of the artifacts and snapshots it reads
    model: str | None = None  # its display name; not in the digest
    source: dict[str, str] = field(default_factory=dict)  # of a method; not in the digest

    @property
    def digest(self) -> str:
        """sha256 over the sorted JSON of the stage, its version, its parameters and inputs."""
        version = schemas.STAGE_VERSIONS[self.stage]
        return digest_of([self.stage, version, self.params, list(self.inputs)])


@dataclass(frozen=True)
class ArtifactRef:
    """A pointer to a complete artifact, with its cost; tasks pass these on instead of data."""

    stage: str
    dataset: str
    model: str | None
    digest: str
    path: str
    rows: int
    skipped: bool = False  # it already existed
    seconds: float = 0.0
    peak_rss_mb: float | None = None
    prompt_set: str = ""  # under which a run uses it; empty in a run with one set
    left_out: bool = False  # when the run was packed


class ArtifactStore:
    """The artifacts under one root, e.g. results/store, as made on `device`."""

    def __init__(self, root: Path, device: str = "auto") -> None:
        self.root = root
        self.device = device

    def find(self, key: ArtifactKey) -> ArtifactRef | None:
        """Return the artifact of `key`, or None if it is absent or damaged.

        Its bytes are compared with their hashes, once a process. A damaged artifact is moved
        aside (`.broken-<n>`), so that it is rebuilt.
        """
        path = self._path(key)
        if not path.exists():
            return None
        problems = check_once(path)
        if problems:
            log.warning("%s; rebuilding it", problems[0])
            move_aside(path)
            return None
        manifest = read_manifest(path)
        warn_if_other(manifest.get("made_by"), self.device, path)
        warn_if_edited(manifest.get("source"), key.source, path)
        return self._ref(key, manifest["rows"], skipped=True)

    def write(
        self,
        key: ArtifactKey,
        part_rows: Sequence[int],
        make_part: Callable[[int, int], pa.Table],
        facts: Callable[[], dict[str, Any]] = dict,
    ) -> ArtifactRef:
        """Build the artifact of `key` unless it exists; resume it if a run was killed.

        `part_rows` is the number of items of each part; `make_part(start, stop)` returns the rows
        of items [start, stop). `facts` is called once, at the end, and returns more entries of the
        manifest; they must depend on the key alone. Memory: one part.
        """
        with locked(self._lock(key)):
            found = self.find(key)
            if found:
                return found
            path = self._path(key)
            partial = path.with_name(f"{path.name}.partial")
            manifest = _resume(partial, key, list(part_rows), self.device)
            cost = Meter(partial, resumed=bool(manifest["parts"]))
            stops = [sum(part_rows[: i + 1]) for i in range(len(part_rows))]
            todo = range(len(manifest["parts"]), len(part_rows))
            sizes = part_rows[todo.start :]
            for i in track(todo, f"{key.dataset} {key.stage}", "row", sizes=sizes):
                table = make_part(stops[i] - part_rows[i], stops[i])
                part = write_part(partial / f"part-{i:05d}.parquet", table)
                manifest["parts"].append(part)
                cost.charge()
                _write_manifest(partial, manifest)
            manifest["rows"] = sum(part["rows"] for part in manifest["parts"])
            manifest["facts"] = facts()
            cost.charge()
            _write_manifest(partial, manifest)
            partial.rename(path)
            fsync_dir(path.parent)
        return self._ref(key, manifest["rows"], skipped=False)

    def _ref(self, key: ArtifactKey, rows: int, skipped: bool) -> ArtifactRef:
        path = str(self._path(key))
        return ArtifactRef(key.stage, key.dataset, key.model, key.digest, path, rows, skipped)

    def _path(self, key: ArtifactKey) -> Path:
        return path_of(self.root, key.stage, key.dataset, key.digest)

    def _lock(self, key: ArtifactKey) -> Path:
        return self.root / ".locks" / f"{key.stage}-{key.dataset}-{key.digest[:16]}.lock"


def path_of(root: Path, stage: str, dataset: str, digest: str) -> Path:
    """Return the folder of an artifact in the store under `root`."""
    return root / stage / dataset / digest


def split_rows(total: int, rows: int, row_bytes: int = 0) -> list[int]:
    """Return part sizes for `total` rows; each part has at most `rows` and MAX_PART_BYTES."""
    if row_bytes:
        rows = max(1, min(rows, MAX_PART_BYTES // row_bytes))
    full, rest = divmod(total, rows)
    return [rows] * full + ([rest] if rest or not full else [])


def write_part(path: Path, table: pa.Table) -> dict[str, Any]:
    """Write one part durably and return its manifest entry: Parquet, or `.arrow`, in one batch."""
    temporary = path.with_suffix(".tmp")
    rows = max(1, table.num_rows)
    try:
        if path.suffix == ".arrow":
            with pa.ipc.new_file(str(temporary), table.schema) as stream:
                stream.write_table(table.combine_chunks(), rows)
        else:
            pq.write_table(table, temporary, compression="zstd", row_group_size=rows)
    except OSError as error:
        error.filename = str(path)  # a full disk names none
        raise
    fsync_file(temporary)
    digest = digest_file(temporary)
    size = temporary.stat().st_size
    temporary.replace(path)
    return {"file": path.name, "rows": table.num_rows, "bytes": size, "sha256": digest}


def move_aside(path: Path) -> Path:
    """Rename a damaged artifact to `<digest>.broken-<n>`; nothing is deleted."""
    aside = place_aside(path)
    path.rename(aside)
    return aside


def place_aside(path: Path) -> Path:
    """Return where a damaged file or folder is moved to, or copied before it is mended."""
    taken = [int(p.suffix.rpartition("-")[2]) for p in path.parent.glob(f"{path.name}.broken-*")]
    return path.with_name(f"{path.name}.broken-{max(taken, default=0) + 1}")


def read_rows(
    ref: ArtifactRef, start: int = 0, stop: int | None = None, columns: list[str] | None = None
) -> pa.Table:
    """Read rows [start, stop) of an artifact; only the parts that contain them are read.

    Raises ArtifactError if there are no such rows.
    """
    path = Path(ref.path)
    stop = ref.rows if stop is None else min(stop, ref.rows)
    tables: list[pa.Table] = []
    first = 0
    for part in _parts_of(path):
        last = first + part["rows"]
        if (first < stop and last > start) or (part["rows"] == 0 and not tables):
            table = _read_part(path, part, columns)
            low = max(start - first, 0)
            tables.append(table.slice(low, max(0, min(stop, last) - first - low)))
        first = last
    if not tables:
        raise ArtifactError(f"{path}: has no rows [{start}, {stop}), only {ref.rows}")
    return pa.concat_tables(tables)


def _parts_of(path: Path) -> list[dict[str, Any]]:
    """Return the parts of an artifact; a manifest lists all images of `queries`, so it is kept."""
    try:
        stat = (path / MANIFEST).stat()
    except OSError:
        return read_manifest(path)["parts"]  # which says what is wrong
    return _read_parts(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _read_parts(path: Path, _time: int, _size: int) -> list[dict[str, Any]]:
    return read_manifest(path)["parts"]


def _read_part(path: Path, part: dict[str, Any], columns: list[str] | None) -> pa.Table:
    if not is_whole(path, part):
        raise ArtifactError(f"{path / part['file']}: {DIFFERS}. Run the same command again.")
    return pq.read_table(path / part["file"], columns=columns, partitioning=None)


def _resume(partial: Path, key: ArtifactKey, part_rows: list[int], device: str) -> dict[str, Any]:
    """Return a killed run's manifest, up to its last complete part, or a new one."""
    fresh: dict[str, Any] = {
        "stage": key.stage,
        "version": schemas.STAGE_VERSIONS[key.stage],
        "dataset": key.dataset,
        "digest": key.digest,
        "params": key.params,
        "inputs": list(key.inputs),
        "part_rows": part_rows,
        "parts": [],
        "rows": 0,
        "facts": {},
        "made_by": made_by(device),
    }
    if key.source:
        fresh["source"] = key.source
    try:
        begun = read_manifest(partial)
    except ArtifactError:
        begun = {}
    edited = begun.get("source", key.source) != key.source
    if begun.get("part_rows") != part_rows or edited:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        _write_manifest(partial, fresh)
        return fresh
    warn_if_other(begun.get("made_by"), device, partial)
    for part in begun["parts"]:
        file = partial / part["file"]
        if not file.is_file() or digest_file(file) != part["sha256"]:
            break
        fresh["parts"].append(part)
    complete = {MANIFEST, COST, *(part["file"] for part in fresh["parts"])}
    for stray in [path for path in partial.iterdir() if path.name not in complete]:
        stray.unlink()
    if fresh["parts"]:
        log.info(
            "%s %s: %d of %d parts already exist",
            key.dataset,
            key.stage,
            len(fresh["parts"]),
            len(part_rows),
        )
    return fresh


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_whole(folder / MANIFEST, sealed(manifest))
