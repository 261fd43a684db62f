"""Artifacts: immutable directories of Parquet, addressed by what they were made from.

    <root>/<stage>/<dataset>/<digest>/part-00000.parquet ... manifest.json

A stage's parts are committed one by one in `<digest>.partial/`, under a lock; the manifest there
names those that are whole, so a killed run is continued and not repeated. A last rename
publishes. This module is the only writer of Parquet artifacts and the only judge of what is done.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import digest_file, digest_of
from xmore.files.errors import ArtifactError
from xmore.files.locks import locked
from xmore.files.paths import fsync_dir, fsync_file, write_whole
from xmore.files.progress import track
from xmore.store import schemas
from xmore.store.contracts import ArtifactManifest, read_contract

log = logging.getLogger(__name__)

MAX_PART_BYTES = 64 << 20  # uncompressed; a part is one row group and the unit of retry
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ArtifactKey:
    """What an artifact is made from; equal keys mean equal content."""

    stage: str
    dataset: str
    params: dict[str, Any]  # the stage's own part of the config, model identities
    inputs: tuple[str, ...] = ()  # digests of the artifacts and snapshots it reads
    model: str | None = None  # its name, for people: not in the digest

    @property
    def digest(self) -> str:
        """sha256 over the sorted JSON of the stage, its version, its parameters and inputs."""
        version = schemas.STAGE_VERSIONS[self.stage]
        return digest_of([self.stage, version, self.params, list(self.inputs)])


@dataclass(frozen=True)
class ArtifactRef:
    """A small pointer to a whole artifact, and what it cost: what tasks hand on, never data."""

    stage: str
    dataset: str
    model: str | None
    digest: str
    path: str
    rows: int
    skipped: bool = False  # it was there already
    seconds: float = 0.0
    peak_rss_mb: float | None = None


class ArtifactStore:
    """The artifacts under one root, e.g. results/store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: ArtifactKey) -> ArtifactRef | None:
        """The artifact of `key` if it is there and whole, by existence and sizes alone.

        A damaged one is moved aside (`.broken-<n>`), so that it is made again.
        """
        path = self._path(key)
        if not path.exists():
            return None
        faults = check_sizes(path)
        if faults:
            log.warning("%s; making it again", faults[0])
            move_aside(path)
            return None
        return self._ref(key, read_manifest(path)["rows"], skipped=True)

    def write(
        self,
        key: ArtifactKey,
        part_rows: Sequence[int],
        make_part: Callable[[int, int], pa.Table],
        facts: Callable[[], dict[str, Any]] = dict,
    ) -> ArtifactRef:
        """Make the artifact of `key`, unless it is there; continue what a killed run has begun.

        `part_rows` holds the number of items of each part; `make_part(start, stop)` returns the
        rows of items [start, stop). `facts` is asked once, at the end, for what else the
        manifest should say; it must depend on the key alone. Holds one part in memory.
        """
        with locked(self._lock(key)):
            found = self.find(key)
            if found:
                return found
            path = self._path(key)
            partial = path.with_name(f"{path.name}.partial")
            manifest = _resume(partial, key, list(part_rows))
            stops = [sum(part_rows[: i + 1]) for i in range(len(part_rows))]
            todo = range(len(manifest["parts"]), len(part_rows))
            for i in track(todo, f"{key.dataset} {key.stage}", "part"):
                table = make_part(stops[i] - part_rows[i], stops[i])
                part = write_part(partial / f"part-{i:05d}.parquet", table)
                manifest["parts"].append(part)
                _write_manifest(partial, manifest)
            manifest["rows"] = sum(part["rows"] for part in manifest["parts"])
            manifest["facts"] = facts()
            _write_manifest(partial, manifest)
            partial.rename(path)
            fsync_dir(path.parent)
        return self._ref(key, manifest["rows"], skipped=False)

    def _ref(self, key: ArtifactKey, rows: int, skipped: bool) -> ArtifactRef:
        path = str(self._path(key))
        return ArtifactRef(key.stage, key.dataset, key.model, key.digest, path, rows, skipped)

    def _path(self, key: ArtifactKey) -> Path:
        return self.root / key.stage / key.dataset / key.digest

    def _lock(self, key: ArtifactKey) -> Path:
        return self.root / ".locks" / f"{key.stage}-{key.dataset}-{key.digest[:16]}.lock"


def split_rows(total: int, rows: int, row_bytes: int = 0) -> list[int]:
    """Part sizes for `total` rows: at most `rows`, and at most MAX_PART_BYTES, each."""
    if row_bytes:
        rows = max(1, min(rows, MAX_PART_BYTES // row_bytes))
    full, rest = divmod(total, rows)
    return [rows] * full + ([rest] if rest or not full else [])


def write_part(path: Path, table: pa.Table) -> dict[str, Any]:
    """Write one part durably and return what a manifest says of it."""
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary, compression="zstd", row_group_size=max(1, table.num_rows))
    fsync_file(temporary)
    digest = digest_file(temporary)
    size = temporary.stat().st_size
    temporary.replace(path)
    return {"file": path.name, "rows": table.num_rows, "bytes": size, "sha256": digest}


def read_manifest(path: Path) -> dict[str, Any]:
    """An artifact's manifest; raises ArtifactError if it cannot be read."""
    try:
        return read_contract(path / MANIFEST, ArtifactManifest)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path / MANIFEST}: unreadable ({error})") from error


def check_sizes(path: Path) -> list[str]:
    """Faults of an artifact that cost no reading to find: files absent or of another size."""
    try:
        parts = read_manifest(path)["parts"]
    except ArtifactError as error:
        return [str(error)]
    faults = []
    for part in parts:
        file = path / part["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != part["bytes"]:
            have = "is absent" if size is None else f"has {size} bytes"
            faults.append(f"{file} {have}, its manifest says {part['bytes']}")
    return faults


def check_hashes(path: Path) -> list[str]:
    """Faults of an artifact, each of its bytes read."""
    faults = check_sizes(path)
    if faults:
        return faults
    return [
        f"{path / part['file']}: its bytes are not those that were written (sha256 differs)"
        for part in read_manifest(path)["parts"]
        if digest_file(path / part["file"]) != part["sha256"]
    ]


def move_aside(path: Path) -> Path:
    """Rename a damaged artifact to `<digest>.broken-<n>`; nothing is deleted."""
    taken = [int(p.suffix.rpartition("-")[2]) for p in path.parent.glob(f"{path.name}.broken-*")]
    aside = path.with_name(f"{path.name}.broken-{max(taken, default=0) + 1}")
    path.rename(aside)
    return aside


def read_rows(
    ref: ArtifactRef, start: int = 0, stop: int | None = None, columns: list[str] | None = None
) -> pa.Table:
    """Rows [start, stop) of an artifact, reading only the parts that hold them."""
    path = Path(ref.path)
    stop = ref.rows if stop is None else min(stop, ref.rows)
    tables: list[pa.Table] = []
    first = 0
    for part in read_manifest(path)["parts"]:
        last = first + part["rows"]
        if (first < stop and last > start) or (part["rows"] == 0 and not tables):
            table = pq.read_table(path / part["file"], columns=columns, partitioning=None)
            low = max(start - first, 0)
            tables.append(table.slice(low, max(0, min(stop, last) - first - low)))
        first = last
    if not tables:
        raise ArtifactError(f"{path}: has no rows [{start}, {stop}), only {ref.rows}")
    return pa.concat_tables(tables)


def read_parts(ref: ArtifactRef, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The parts of an artifact, one in memory at a time."""
    path = Path(ref.path)
    for part in read_manifest(path)["parts"]:
        yield pq.read_table(path / part["file"], columns=columns, partitioning=None)


def _resume(partial: Path, key: ArtifactKey, part_rows: list[int]) -> dict[str, Any]:
    """The manifest to go on from: that of a killed run up to its last whole part, or a new one."""
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
    }
    try:
        begun = read_manifest(partial)
    except ArtifactError:
        begun = {}
    if begun.get("part_rows") != part_rows:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        _write_manifest(partial, fresh)
        return fresh
    for part in begun["parts"]:
        file = partial / part["file"]
        if not file.is_file() or digest_file(file) != part["sha256"]:
            break
        fresh["parts"].append(part)
    whole = {MANIFEST, *(part["file"] for part in fresh["parts"])}
    for stray in [path for path in partial.iterdir() if path.name not in whole]:
        stray.unlink()
    if fresh["parts"]:
        log.info(
            "%s %s: %d of %d parts are there",
            key.dataset,
            key.stage,
            len(fresh["parts"]),
            len(part_rows),
        )
    return fresh


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
