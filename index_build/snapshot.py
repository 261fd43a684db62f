"""Put a snapshot together from the batches' features, verify it, publish it.

A shard of which every row is kept is the batch's own file, under another name: a hard link, or a
symbolic one where the file system has no hard links. A shard that lost rows is written anew, and
later snapshots link to that as long as the same rows are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base import history
from index_build.base.batches import features_name
from index_build.base.tables import write_table
from index_build.embed import KINDS, part, read_record, save_array
from index_build.plan import ReindexPlan
from xmore.files.digests import digest_file, digest_of
from xmore.files.errors import SnapshotError
from xmore.files.paths import fsync_dir, fsync_file, link_or_copy, write_whole
from xmore.files.progress import track
from xmore.memory.rows import embedding_blocks
from xmore.memory.snapshot import FOLDERS, Snapshot, index_facts, index_file, read_snapshot, seen_by
from xmore.store.artifacts import move_aside


@dataclass(frozen=True)
class Assembled:
    """A snapshot's rows, put together."""

    files: list[dict[str, Any]]  # for the manifest
    shards: list[dict[str, Any]]  # where each comes from
    rows: int
    dim: int

    def identities(self) -> list[tuple[str, int, str | None]]:
        """Which rows of which batches' shards these are, in order."""
        return [identity(shard) for shard in self.shards]


def assemble(
    plan: ReindexPlan,
    kept: Iterable[tuple[str, int, list[int]]],
    count: int,
    previous: Snapshot | None,
) -> Assembled:
    """Lay out the `count` shards of `kept`, (batch, shard, positions), under `plan.work`.

    An index that a stopped run has built there stays, if it is of the same rows. Memory: one
    shard. Raises SnapshotError where shards differ in their dimensions.
    """
    for kind in KINDS:
        shutil.rmtree(plan.work / kind, ignore_errors=True)
    plan.work.mkdir(parents=True, exist_ok=True)
    if previous and previous.manifest["model"]["identity"] != plan.model.identity:
        previous = None  # its shards are of another model's features
    before = {identity(shard): shard for shard in _shards_of(previous)}
    files: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    dims: dict[int, str] = {}
    for batch, number, positions in track(kept, "memory assembling", "shard", count):
        folder = plan.config.memory / "batches" / batch / features_name(plan.model.identity)
        record = read_record(folder, number)
        shard: dict[str, Any] = {
            "batch": batch,
            "number": number,
            "rows": len(positions),
            "kept": None if len(positions) == record["rows"] else digest_of(positions),
        }
        dims.setdefault(record["dim"], batch)
        known = before.get(identity(shard))
        if shard["kept"] is None:
            source = {kind: (part(folder, kind, number), f) for kind, f in record["files"].items()}
        elif previous and known:
            source = {kind: (previous.path / f["file"], f) for kind, f in known["files"].items()}
        else:
            source = {}
        shard["files"] = _lay_out(plan.work, len(shards), source, (folder, number, positions))
        shards.append(shard)
        files += shard["files"].values()
    if len(dims) > 1:
        one, other = list(dims.items())[:2]
        raise SnapshotError(
            f"{plan.config.memory}: the embeddings of {one[1]} have {one[0]} dimensions, those of "
            f"{other[1]} {other[0]}. Name the model that made those that are here already."
        )
    rows = sum(shard["rows"] for shard in shards)
    made = Assembled(files, shards, rows, next(iter(dims), 0))
    _forget_other_index(plan, digest_of(made.identities()))
    return made


def write_manifest(plan: ReindexPlan, made: Assembled, facts: dict[str, Any]) -> Snapshot:
    """Describe what lies in `plan.work`: files, digests and `facts`. Not published."""
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
    manifest = {
        "digest": digest_of([[[f["file"], f["sha256"]] for f in files], plan.model.identity]),
        "plan": plan.digest,
        "model": {"name": plan.model.name, "identity": plan.model.identity},
        "files": [*files, *indices],
        "shards": made.shards,
        "rows": made.rows,
        "dim": made.dim,
        **facts,
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    write_whole(plan.work / "manifest.json", text.encode())
    return read_snapshot(plan.work)


def publish(plan: ReindexPlan, snapshot: Snapshot) -> str:
    """Turn what lies in `plan.work` into a snapshot; returns its name. CURRENT is not moved.

    The name is of the rows' content and of the plan. Raises SnapshotError where `check_rows`
    finds a fault; nothing is published then.
    """
    faults = check_rows(snapshot)
    if faults:
        raise SnapshotError(
            f"{faults[0]}. Nothing was published. Remove the features-* folders under "
            f"{plan.config.memory / 'batches'} to have all embedded anew."
        )
    name = digest_of([snapshot.digest, plan.digest])[:16]
    target = plan.config.memory / "snapshots" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for index in _indexed(snapshot):
        fsync_file(index.index_path)
    for folder in (*KINDS, "."):
        if (snapshot.path / folder).exists():
            fsync_dir(snapshot.path / folder)
    if _is_whole(target):
        shutil.rmtree(snapshot.path)  # what failed before has failed again: nothing is new
        return name
    if target.exists():
        move_aside(target)
    os.rename(snapshot.path, target)
    fsync_dir(target.parent)
    return name


def point_current(memory: Path, name: str) -> None:
    """Make `name` the snapshot that new runs read."""
    current = memory / "CURRENT"
    if not current.exists() or current.read_text().strip() != name:
        write_whole(current, f"{name}\n".encode())


def tidy(plan: ReindexPlan) -> None:
    """Clear away what the next run has no use for."""
    for leftover in plan.config.memory.glob(".*.tmp"):  # of a killed run
        leftover.unlink()
    kept = {f"wanted-{listed.digest[:16]}" for listed in plan.listed}
    work = plan.config.memory / "making"
    for path in work.iterdir() if work.is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def changes(snapshot: Snapshot, previous: Snapshot | None) -> tuple[int, int]:
    """How many memory_keys came and how many went, against the snapshot before. Streams keys."""
    if previous is None:
        return snapshot.rows, 0
    mine, theirs = np.unique(_keys(snapshot)), np.unique(_keys(previous))  # an old one may repeat
    both = np.intersect1d(mine, theirs, assume_unique=True).size
    return len(mine) - both, len(theirs) - both


def check_rows(snapshot: Snapshot) -> list[str]:
    """Faults in a snapshot's content: rows that are no unit vectors or have no key, its indices."""
    from xmore.memory.search import (
        open_index,  # brings torch, which an unchanged re-index never needs
    )

    faults = []
    indexed = _indexed(snapshot)
    for rows in indexed:
        try:
            for _ in embedding_blocks(rows):  # checks each row
                pass
        except SnapshotError as error:
            faults.append(str(error))
    for shard in snapshot.shards:
        keys = pq.read_table(shard.metadata, columns=["memory_key"])["memory_key"]
        if keys.null_count or not pc.all(pc.equal(pc.utf8_length(keys), 64)).as_py():
            faults.append(f"{shard.metadata}: has rows without a memory_key")
            break
    for rows in indexed:
        try:
            open_index(rows.index_path, rows.rows, rows.dim)
        except SnapshotError as error:
            faults.append(str(error))
    return faults


def verify_snapshot(snapshot: Snapshot) -> list[str]:
    """Faults of a snapshot, each of its bytes read."""
    return [
        f"{snapshot.path / file['file']}: its bytes are not those that were published"
        for file in track(snapshot.manifest["files"], "memory verifying", "file")
        if digest_file(snapshot.path / file["file"]) != file["sha256"]
    ]


def newest(memory: Path) -> Snapshot | None:
    """The snapshot that was published last, if it can be read."""
    for name in history.names(memory):
        try:
            return read_snapshot(memory / "snapshots" / name)
        except SnapshotError:
            continue
    return None


def _is_whole(path: Path) -> bool:
    try:
        return bool(read_snapshot(path))
    except SnapshotError:
        return False


def _forget_other_index(plan: ReindexPlan, rows: str) -> None:
    """Remove an index of other rows that a stopped run left in `plan.work`."""
    known = plan.work.with_name(f"{plan.work.name}.rows")
    if not known.exists() or known.read_text() != rows:
        for path in plan.work.parent.glob(f"{plan.work.name}.*"):
            path.unlink()
        for kind in FOLDERS:
            (plan.work / index_file(kind)).unlink(missing_ok=True)
        write_whole(known, rows.encode())


def _indexed(snapshot: Snapshot) -> list[Snapshot]:
    """The snapshot as each of its indices sees it."""
    kinds = [kind for kind in FOLDERS if index_facts(kind) in snapshot.manifest]
    return [seen for kind in kinds if (seen := seen_by(snapshot, kind))]


def _keys(snapshot: Snapshot) -> np.ndarray:
    """(N,) sorted memory_keys, 64 bytes each."""
    columns = [pq.read_table(s.metadata, columns=["memory_key"]) for s in snapshot.shards]
    return np.sort(pa.concat_tables(columns)["memory_key"].to_numpy().astype("S64"))


def _shards_of(snapshot: Snapshot | None) -> list[dict[str, Any]]:
    return snapshot.manifest.get("shards", []) if snapshot else []


def identity(shard: dict[str, Any]) -> tuple[str, int, str | None]:
    """Which rows of which batch's shard a snapshot's shard is."""
    return shard["batch"], shard["number"], shard["kept"]


def _lay_out(
    work: Path,
    place: int,
    source: dict[str, tuple[Path, dict[str, Any]]],
    piece: tuple[Path, int, list[int]],
) -> dict[str, dict[str, Any]]:
    """Shard `place` of the snapshot: linked from `source`, or rows of `piece` written anew."""
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


def _link(path: Path, target: Path, ours: bool) -> None:
    """Share a batch's own file, or one of an earlier snapshot, which may go before this one."""
    if not ours:
        link_or_copy(path, target)
        return
    try:
        os.link(path, target)
    except OSError:  # `work` and a snapshot are equally deep, so that it holds after the rename
        target.symlink_to(os.path.relpath(path, target.parent))


def _write(path: Path, positions: list[int], target: Path) -> None:
    if path.suffix == ".npy":
        save_array(target, np.load(path, mmap_mode="r")[positions])
    else:
        write_table(target, pq.read_table(path, partitioning=None).take(pa.array(positions)))
