"""Delete what no kept snapshot uses: old snapshots, and the batches' rows that left the memory.

These snapshots are kept: the newest, CURRENT's, and those that a running benchmark reads. Batches
keep the rows of these snapshots, and the record of failed rows, so that these are not requested
again. A row that was taken down leaves no URL, caption, image or embedding; its row_key and sha256
are kept, so that it cannot come back.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base import history, takedown
from index_build.base.batches import (
    Batch,
    check_outcomes,
    features_name,
    list_batches,
    sums_of,
)
from index_build.base.changes import Change, beside, changing, clear_removed, commit, remove
from index_build.base.features import (
    KINDS,
    damaged_features,
    describe,
    part,
    read_record,
    record_path,
    save_array,
)
from index_build.base.metadata import whole_metadata
from index_build.base.tables import parquet, scratch_db, write_table
from index_build.download.job import TAKEN_DOWN
from xmore.files.errors import LockedError, SnapshotError, passed_over
from xmore.files.locks import locked
from xmore.files.paths import fsync_file, remove_folder, write_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed
from xmore.memory.locks import lock_of
from xmore.memory.snapshot import read_snapshot, resolve_current


@dataclass(frozen=True)
class Freed:
    """What gc deleted, or would delete."""

    snapshots: dict[str, str]  # the deleted ones -> the reason
    kept: dict[str, str]  # the kept ones -> the reason
    rows: int  # downloaded rows whose image is deleted
    files: int  # shards that are rewritten without them
    bytes: int


def collect(memory: Path, keep: int, dry_run: bool) -> Freed:
    """Delete all but the newest `keep` snapshots, and what only the deleted ones used.

    With `dry_run`, only counts it. Memory: DuckDB's limit, and one shard. Raises LockedError while
    a re-index runs; a re-index cannot start while gc runs.
    """
    busy = "a re-index is running. Wait for it to end, then run gc."
    with changing(memory, busy), ExitStack() as held:
        taken = list(takedown.current(memory))
        kept, going = _choose(memory, keep, taken, held)
        used = {_features_of(memory / "snapshots" / name) for name in kept}
        metadata = [file for name in kept for file in whole_metadata(memory / "snapshots" / name)]
        if not metadata:
            raise SnapshotError(f"{memory}: no snapshot would be left. Nothing was deleted.")
        freed = _bytes_of([memory / "snapshots" / name for name in going])
        if not dry_run:
            for name in going:
                remove(memory / "snapshots" / name)
            clear_removed(memory)
            for path in sorted((memory / "batches").rglob("*.broken-*")):  # it may be of any row
                path.unlink()
            remove_folder(memory / "making")
        rows = files = 0
        with _referenced(memory, metadata) as db:
            batches = [batch for batch in list_batches(memory) if batch.closed]
            for batch in track(batches, "memory freeing", "batch"):
                for folder in sorted(batch.path.glob("features-*")):
                    if folder.name not in used:
                        freed += _bytes_of([folder])
                        if not dry_run:
                            remove(folder)
                for number in batch.attempted():
                    dead, size = _free(db, memory, batch, number, taken, dry_run)
                    rows, files, freed = rows + dead, files + (dead > 0), freed + size
                if not dry_run and not batch.attempted():
                    remove(batch.path)
        return Freed(going, kept, rows, files, freed)


def _features_of(snapshot: Path) -> str:
    """Return the name of the feature folders that a snapshot was built from."""
    return features_name(read_snapshot(snapshot).manifest["model"]["identity"])


def _choose(
    memory: Path, keep: int, taken: list[str], held: ExitStack
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the snapshots to keep and to delete, with reasons; locks the latter in `held`."""
    current, kept, going = resolve_current(memory), {}, {}
    for place, name in enumerate(history.names(memory)):
        if name == current:
            kept[name] = "CURRENT"
            continue
        marked = takedown.holds(memory / "snapshots" / name, taken) > 0
        if place < keep and not marked:
            kept[name] = f"one of the newest {keep}"
            continue
        try:
            held.enter_context(locked(lock_of(memory, name), refuse="in use"))
            going[name] = "holds rows that were taken down" if marked else "old"
        except LockedError:
            kept[name] = "in use by a running benchmark" + (
                ", and holds rows that were taken down: run gc again" if marked else ""
            )
    folder = memory / "snapshots"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept and path.name not in going:
            going[path.name] = "damaged or incomplete"
    return kept, going


@contextmanager
def _referenced(memory: Path, files: list[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB with the table `used` of the memory_keys in the snapshots' metadata."""
    with scratch_db(memory / "making" / "gc") as db:
        db.execute(f"create table used as select distinct memory_key from {parquet(files)}")
        yield db


def _free(
    db: duckdb.DuckDBPyConnection,
    memory: Path,
    batch: Batch,
    number: int,
    taken: list[str],
    dry_run: bool,
) -> tuple[int, int]:
    """Rewrite a batch's shard without its dead rows -> their number, and the bytes freed.

    All files of the shard change at once: `commit`.
    """
    path = batch.outcome(number)
    check_outcomes(batch, number)
    rows = pq.read_table(path, partitioning=None)
    stays, outcomes = _split(db, batch, number, rows, taken)
    if outcomes.equals(rows):
        return 0, 0
    paths = [batch.tar(number)]
    features = sorted(batch.path.glob("features-*"))
    paths += [part(folder, kind, number) for folder in features for kind in KINDS]
    before = _bytes_of(paths)
    came = rows["cause"].null_count
    dead = came - stays.count(True)
    if dry_run:
        return dead, before * dead // max(came, 1)
    _check_shard(batch, number, features)
    live = rows.filter(pa.array(stays))
    changes = [
        change
        for folder in features
        if record_path(folder, number).exists()
        for change in _new_features(folder, number, live["row_key"], keep=len(outcomes) > 0)
    ]
    if batch.kind == "urls" and len(outcomes):
        changes.append(_new_tar(paths[0], set(live["image_path"].to_pylist())))
    elif batch.kind == "urls":
        changes.append(Change(paths[0], None))
    sums = batch.sums(number)
    if len(outcomes):
        write_table(beside(path), outcomes)
        write_whole(beside(sums), sums_of(beside(path), beside(batch.tar(number))))
    changes += [Change(each, beside(each) if len(outcomes) else None) for each in (path, sums)]
    commit(memory, changes)
    return dead, before - _bytes_of(paths)


def _check_shard(batch: Batch, number: int, features: list[Path]) -> None:
    """Raise SnapshotError if a shard's files are damaged: else the new ones would be, unseen."""
    check_outcomes(batch, number, images=True)
    for path in (path for folder in features for path in damaged_features(folder, number)):
        raise SnapshotError(
            f"{path}: its bytes are not those that were embedded. `xmore memory verify "
            f"{batch.path.parents[1]} --all --repair` moves its shard's features aside; then "
            "run `xmore reindex`, and gc again."
        )


def _split(
    db: duckdb.DuckDBPyConnection, batch: Batch, number: int, rows: pa.Table, taken: list[str]
) -> tuple[list[bool], pa.Table]:
    """Return which rows keep their image, and the outcomes to write."""
    db.register("rows", rows.select(["row_key", "memory_key", "cause"]))
    found = db.execute(
        "select rows.cause is null and memory_key in (from used) from rows"
    ).fetchall()
    db.unregister("rows")
    marked = set(takedown.all_forms(taken))
    urls = rows["url"].to_pylist() if "url" in rows.column_names else [None] * len(rows)
    urls = [None if url is None else takedown.requested(url) for url in urls]
    keys = rows["row_key"].to_pylist()
    hashes = rows["memory_key"].to_pylist()
    gone = [bool({a, b, c} & marked) for a, b, c in zip(keys, hashes, urls, strict=True)]
    stays = [used and not taken for (used,), taken in zip(found, gone, strict=True)]
    rejected = _rejected(batch, number)
    causes, recorded = [], []
    for key, cause, stay, taken_down in zip(
        keys, rows["cause"].to_pylist(), stays, gone, strict=True
    ):
        causes.append(TAKEN_DOWN if taken_down else cause or rejected.get(key))
        recorded.append(stay or causes[-1] is not None)
    outcomes = rows.set_column(
        rows.column_names.index("cause"), "cause", pa.array(causes, pa.string())
    )
    for name in outcomes.column_names:
        kept = ("row_key", "memory_key", "cause", "tries")
        if any(gone) and name not in kept:
            blank = pc.if_else(pa.array(gone), pa.scalar(None, rows[name].type), rows[name])
            outcomes = outcomes.set_column(outcomes.column_names.index(name), name, blank)
    return stays, outcomes.filter(pa.array(recorded, pa.bool_()))


def _rejected(batch: Batch, number: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in batch.path.glob("features-*"):
        with passed_over(OSError):
            found |= read_record(folder, number)["rejected"]
    return found


def _new_features(folder: Path, number: int, live: pa.ChunkedArray, keep: bool) -> Iterator[Change]:
    """Write the features of the rows `live` beside those of a shard; without `keep`, of none."""
    metadata = part(folder, "metadata", number)
    table = pa.table({"row_key": pa.array([], pa.string())})  # none has features
    if metadata.exists():
        table = pq.read_table(metadata, partitioning=None)
    stays = pc.is_in(table["row_key"], live.combine_chunks())
    positions = np.flatnonzero(stays.to_numpy())
    files = {}
    for kind in KINDS:
        path = part(folder, kind, number)
        if not path.exists():
            continue
        if not len(positions):
            yield Change(path, None)
            continue
        if (
            len(positions) == table.num_rows
        ):  # a copy would cost its size: a snapshot links this one
            files[kind] = path
            continue
        if kind == "metadata":
            write_table(beside(path), table.filter(stays))
        else:
            save_array(beside(path), np.load(path, mmap_mode="r")[positions])
        files[kind] = beside(path)
        yield Change(path, beside(path))
    done = record_path(folder, number)
    if keep:
        facts = {"rows": len(positions), "files": describe(files)}
        write_whole(beside(done), sealed(read_record(folder, number) | facts))
    yield Change(done, beside(done) if keep else None)


def _new_tar(path: Path, live: set[str]) -> Change:
    """Write a tar with only the images in `live` and their other members beside a shard's."""
    stems = {Path(name).stem for name in live}
    with tarfile.open(path) as old, tarfile.open(beside(path), "w") as new:
        for member in old:
            if member.name.partition(".")[0] in stems:
                new.addfile(member, old.extractfile(member) or io.BytesIO())
    fsync_file(beside(path))
    return Change(path, beside(path))


def _bytes_of(paths: list[Path]) -> int:
    """Return the bytes that deleting these paths frees; hard links elsewhere hold the others."""
    seen: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else [path]:
            with suppress(OSError):
                stat = file.lstat()
                if file.is_file():
                    entry = seen.setdefault((stat.st_dev, stat.st_ino), [stat.st_nlink, 0, 0])
                    entry[1] += 1
                    entry[2] = stat.st_size
    return sum(size for links, count, size in seen.values() if count >= links)
