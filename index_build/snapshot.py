"""Assemble a snapshot from the batches' features, verify it, publish it.

If all rows of a batch's shard are kept, the snapshot links to the batch's own file: a hard link,
or a symbolic one if the file system has no hard links. A shard that lost rows is rewritten; later
snapshots link to the rewritten file as long as the same rows are kept.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index_build.base import history
from index_build.base.batches import features_name
from index_build.base.features import KINDS, part, read_whole_record, save_array
from index_build.base.metadata import whole_metadata
from index_build.base.tables import parquet, scratch_db, write_table
from index_build.plan import ReindexPlan
from index_build.verify import by_index, check_rows
from xmore.files.digests import digest_file, digest_of, has_digest
from xmore.files.errors import SnapshotError
from xmore.files.paths import fsync_dir, fsync_file, link_or_copy, remove_folder, sweep, write_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed
from xmore.memory.pairs import write_pairs
from xmore.memory.snapshot import (
    FOLDERS,
    PAIRS,
    Snapshot,
    index_facts,
    index_file,
    read_shards,
    read_snapshot,
)
from xmore.store.artifacts import move_aside
from xmore.store.made_by import warn_if_other

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembled:
    """The assembled rows of a snapshot."""

    files: list[dict[str, Any]]  # for the manifest
    shards: list[dict[str, Any]]  # with the batch and the shard that each comes from
    rows: int
    dim: int
    made_by: list[dict[str, str]]  # each versions and device that made some of the rows, once

    def identities(self) -> list[tuple[str, int, str | None]]:
        """Return which rows of which batches' shards these are, in order."""
        return [identity(shard) for shard in self.shards]


def assemble(
    plan: ReindexPlan,
    kept: Iterable[tuple[str, int, list[int]]],
    count: int,
    previous: Snapshot | None,
) -> Assembled:
    """Write or link the `count` shards of `kept`, (batch, shard, positions), under `plan.work`.

    An index that a stopped run built there stays if it has the same rows. Memory: one shard.
    Raises SnapshotError if shards differ in their dimensions.
    """
    for kind in KINDS:
        remove_folder(plan.work / kind)
    plan.work.mkdir(parents=True, exist_ok=True)
    sweep(plan.work)  # else what a killed run left would be published, too
    if previous and previous.manifest["model"]["identity"] != plan.model.identity:
        previous = None  # its shards hold another model's features
    before = {identity(shard): shard for shard in _shards_of(previous)}
    files: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    dims: dict[int, str] = {}
    makers: list[dict[str, str]] = []
    for batch, number, positions in track(kept, "memory assembling", "shard", count):
        folder = plan.config.memory / "batches" / batch / features_name(plan.model.identity)
        record = read_whole_record(folder, number)
        shard: dict[str, Any] = {
            "batch": batch,
            "number": number,
            "rows": len(positions),
            "kept": None if len(positions) == record["rows"] else digest_of(positions),
        }
        dims.setdefault(record["dim"], batch)
        if (maker := record.get("made_by")) and maker not in makers:
            warn_if_other(maker, plan.config.execution.device, folder)
            makers.append(maker)
        known = before.get(identity(shard))
        if shard["kept"] is None:
            source = {kind: (part(folder, kind, number), f) for kind, f in record["files"].items()}
        elif previous and known and _are_whole(previous, known["files"].values()):
            source = {kind: (previous.path / f["file"], f) for kind, f in known["files"].items()}
        else:
            source = {}
        shard["files"] = _lay_out(plan.work, len(shards), source, (folder, number, positions))
        shards.append(shard)
        files += shard["files"].values()
    _check_dimensions(plan.config.memory, dims)
    rows = sum(shard["rows"] for shard in shards)
    made = Assembled(files, shards, rows, next(iter(dims), 0), makers)
    _forget_other_index(plan, digest_of(made.identities()))
    return made


def _check_dimensions(memory: Path, dims: dict[int, str]) -> None:
    """Raise SnapshotError if batches differ in their dimensions (dimensions -> batch)."""
    if len(dims) > 1:
        one, other = list(dims.items())[:2]
        raise SnapshotError(
            f"{memory}: the embeddings of {one[1]} have {one[0]} dimensions, but those of "
            f"{other[1]} have {other[0]}. Name the model that made the existing embeddings."
        )


def write_manifest(plan: ReindexPlan, made: Assembled, facts: dict[str, Any]) -> Snapshot:
    """Write the manifest of `plan.work`: files, digests and `facts`. Publishes nothing."""
    files = sorted(made.files, key=lambda file: file["file"])
    indices = [
        {
            "file": index_file(kind),
            "bytes": (plan.work / index_file(kind)).stat().st_size,
            "sha256": facts[index_facts(kind)]["sha256"],
        }
        for kind in FOLDERS
        if index_facts(kind) in facts
    ]
    rows = Snapshot(plan.work, plan.work.name, {}, tuple(read_shards(plan.work, made.dim)))
    pairs = {"file": PAIRS, **write_pairs(rows, plan.work / PAIRS)}
    manifest = {
        "digest": digest_of([[[f["file"], f["sha256"]] for f in files], plan.model.identity]),
        "plan": plan.digest,
        "model": {"name": plan.model.name, "identity": plan.model.identity},
        "files": [*files, *indices, pairs],  # these are no part of the digest
        "shards": made.shards,
        "rows": made.rows,
        "dim": made.dim,
        "made_by": made.made_by,
        **facts,
    }
    write_whole(plan.work / "manifest.json", sealed(manifest))
    return read_snapshot(plan.work)


def publish(plan: ReindexPlan, snapshot: Snapshot) -> str:
    """Rename `plan.work` to a snapshot and return its name. Does not move CURRENT.

    The name depends on the rows' content and the plan. Raises SnapshotError if `check_rows` finds
    a problem; nothing is published then.
    """
    problems = check_rows(snapshot)
    if problems:
        raise SnapshotError(
            f"{problems[0]}. Nothing was published. To embed all rows again, delete the features-* "
            f"folders under {plan.config.memory / 'batches'} and run the same command again."
        )
    name = digest_of([snapshot.digest, plan.digest])[:16]
    target = plan.config.memory / "snapshots" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for index in by_index(snapshot):
        fsync_file(index.index_path)
    for folder in (*KINDS, "."):
        if (snapshot.path / folder).exists():
            fsync_dir(snapshot.path / folder)
    if _is_complete(target):
        shutil.rmtree(snapshot.path)  # the same rows failed again: nothing is new
        return name
    if target.exists():
        move_aside(target)
    os.rename(snapshot.path, target)
    fsync_dir(target.parent)
    return name


def point_current(memory: Path, name: str) -> None:
    """Make `name` the snapshot that new runs read."""
    current = memory / "CURRENT"
    if not current.exists() or current.read_bytes().strip() != name.encode():
        write_whole(current, f"{name}\n".encode())


def clean_up(plan: ReindexPlan) -> None:
    """Delete what the next run does not need."""
    kept = {f"wanted-{listed.digest[:16]}" for listed in plan.listed}
    work = plan.config.memory / "making"
    for path in work.iterdir() if work.is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Changes(NamedTuple):
    """How many images were added and removed, and how many in both have another caption."""

    added: int
    removed: int
    captions: int


def changes(snapshot: Snapshot, previous: Snapshot | None) -> Changes:
    """Count what changed since the previous snapshot, by memory_key.

    Memory: DuckDB's limit, for any number of rows.
    """
    if previous is None:
        return Changes(snapshot.rows, 0, 0)
    with scratch_db(snapshot.path.parents[1] / "making" / "changes") as db:
        for name, one in (("mine", snapshot), ("theirs", previous)):  # an old one may repeat a key
            files = parquet([shard.metadata for shard in one.shards])
            each = "memory_key, min(hash(caption)) as caption"
            db.execute(f"create table {name} as select {each} from {files} group by memory_key")
        counts = (
            "mine anti join theirs using (memory_key)",
            "theirs anti join mine using (memory_key)",
            "mine join theirs using (memory_key) where mine.caption != theirs.caption",
        )
        return Changes(*(db.execute(f"select count(*) from {c}").fetchall()[0][0] for c in counts))


def newest(memory: Path) -> Snapshot | None:
    """Return the newest snapshot whose manifest and metadata are whole, if there is one."""
    for name in history.names(memory):
        path = memory / "snapshots" / name
        try:
            whole_metadata(path)
            return read_snapshot(path)
        except SnapshotError as error:
            log.warning("%s It is passed over.", error)
    return None


def _is_complete(path: Path) -> bool:
    try:
        found = read_snapshot(path)
        return _are_whole(found, found.manifest["files"])
    except SnapshotError:
        return False


def _forget_other_index(plan: ReindexPlan, rows: str) -> None:
    """Delete an index of other rows that a stopped run left in `plan.work`."""
    known = plan.work.with_name(f"{plan.work.name}.rows")
    if not known.exists() or known.read_text() != rows:
        for path in plan.work.parent.glob(f"{plan.work.name}.*"):
            path.unlink()
        for kind in FOLDERS:
            (plan.work / index_file(kind)).unlink(missing_ok=True)
        write_whole(known, rows.encode())


def _shards_of(snapshot: Snapshot | None) -> list[dict[str, Any]]:
    return snapshot.manifest.get("shards", []) if snapshot else []


def identity(shard: dict[str, Any]) -> tuple[str, int, str | None]:
    """Return which rows of which batch's shard a snapshot's shard holds."""
    return shard["batch"], shard["number"], shard["kept"]


def _lay_out(
    work: Path,
    place: int,
    source: dict[str, tuple[Path, dict[str, Any]]],
    piece: tuple[Path, int, list[int]],
) -> dict[str, dict[str, Any]]:
    """Lay out shard `place` of the snapshot: linked from `source`, or rewritten from `piece`."""
    laid = {}
    folder, number, positions = piece
    for kind in source or [k for k in KINDS if part(folder, k, number).exists()]:
        name = f"{kind}/{kind}_{place:06d}.{KINDS[kind]}"
        target = work / name
        target.parent.mkdir(exist_ok=True)
        if source:
            path, facts = source[kind]
            _link(path, target, ours=path.is_relative_to(folder))
        else:
            _write(part(folder, kind, number), positions, target)
            facts = {"bytes": target.stat().st_size, "sha256": digest_file(target)}
        laid[kind] = {"file": name, "bytes": facts["bytes"], "sha256": facts["sha256"]}
    return laid


def _are_whole(snapshot: Snapshot, files: Iterable[dict[str, Any]]) -> bool:
    """Return whether files of a snapshot are as they were published; read once a process."""
    return all(has_digest(snapshot.path / file["file"], file["sha256"]) for file in files)


def _link(path: Path, target: Path, ours: bool) -> None:
    """Link to a batch's own file, or to an earlier snapshot's, which gc may delete first."""
    if not ours:
        link_or_copy(path, target)
        return
    try:
        os.link(path, target)
    except OSError:  # `work` and snapshots are equally deep: the link is valid after the rename
        target.symlink_to(os.path.relpath(path, target.parent))


def _write(path: Path, positions: list[int], target: Path) -> None:
    if path.suffix == ".npy":
        save_array(target, np.load(path, mmap_mode="r")[positions])
    else:
        write_table(target, pq.read_table(path, partitioning=None).take(pa.array(positions)))
