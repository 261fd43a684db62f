"""Verify a memory: read every byte of it, say what is not as it was written, and repair it."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

from flows.verify import Verified
from index_build.base import history, takedown
from index_build.base.batches import (
    DESCRIPTION,
    Batch,
    damaged_outcomes,
    read_batch,
)
from index_build.base.changes import changing
from index_build.base.features import (
    KINDS,
    damaged_features,
    part,
    record_path,
    set_features_aside,
    set_shard_aside,
)
from index_build.base.lines import damaged_lines, repaired
from index_build.sources.selection import SELECTION, damaged_selection
from index_build.verify import check_rows, verify_snapshot
from xmore.files.digests import compare_again
from xmore.files.errors import LockedError, SnapshotError
from xmore.files.locks import locked
from xmore.files.paths import write_whole
from xmore.files.progress import track
from xmore.files.sealed import is_whole_json
from xmore.memory.locks import lock_of
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.store.artifacts import move_aside, place_aside

WRITTEN = "its bytes are not those that were written"


def verify_memory(memory: Path, repair: bool = False) -> Verified:
    """Read all snapshots of a memory, its batches, its history and its take-downs.

    With `repair`, damage is put right, or moved aside, so that the next re-index makes it again.
    Raises SnapshotError if it is no memory; with `repair`, LockedError while a re-index runs.
    """
    compare_again()
    if not (memory / "snapshots").is_dir():
        resolve_current(memory)
    busy = "a re-index is running. Wait for it to end, then repair."
    with changing(memory, busy) if repair else nullcontext():
        done = Verified()
        _verify_events(done, memory, repair)
        _verify_current(done, memory)
        for path in sorted((memory / "snapshots").glob("*/manifest.json")):
            if "." not in path.parent.name:  # neither .removed nor .broken-<n>
                _verify_snapshot(done, path.parent, repair)
        for path in sorted((memory / "batches").glob(f"[0-9]*/{DESCRIPTION}")):
            what = f"damaged. Delete {path.parent} to fetch its rows again"
            if done.json(path, what, repair):
                _verify_batch(done, read_batch(path.parent), repair)
        for folder in sorted((memory / "making").glob("wanted-*")):
            if "." not in folder.name:  # not .partial
                _verify_selection(done, folder, repair)
    return done


def _verify_events(done: Verified, memory: Path, repair: bool) -> None:
    """Read history and take-downs. A damaged line of history may be left out, no take-down."""
    for path in (memory / history.FILE, memory / takedown.FILE):
        done.read(path)
        numbers = damaged_lines(path)
        done.problems += [f"{path}: line {number} is not as it was written" for number in numbers]
        if not numbers or not repair:
            continue
        content, left_out = repaired(path)
        if left_out and path.name == takedown.FILE:
            done.past_repair(
                f"{path}: not repaired, for without its line {left_out[0]} rows may come back. "
                f"Remove it, and add its value: `xmore memory takedown add {memory} VALUE`"
            )
            continue
        if left_out:
            done.moved.append(place_aside(path))
            write_whole(done.moved[-1], path.read_bytes())
        write_whole(path, content)
        done.mend(path, *done.problems[-len(numbers) :])


def _verify_current(done: Verified, memory: Path) -> None:
    path = memory / "CURRENT"
    if not path.exists():
        return
    done.read(path)
    try:
        name = resolve_current(memory)
        as_written = path.read_bytes().rstrip(b"\r\n") == name.encode()
        whole = as_written and (memory / "snapshots" / name).is_dir()
    except SnapshotError:
        whole = False
    if not whole:
        done.past_repair(f"{path}: names no snapshot. `xmore reindex` points it to one")


def _verify_snapshot(done: Verified, path: Path, repair: bool) -> None:
    memory = path.parents[1]
    try:
        snapshot = open_snapshot(memory, path.name)
        files = [path / file["file"] for file in snapshot.manifest["files"]]
        done.read(path / "manifest.json", *files)
        found = verify_snapshot(snapshot) or check_rows(snapshot)
        if not found and not is_whole_json(path / "manifest.json"):
            found = [f"{path / 'manifest.json'}: {WRITTEN}"]
    except SnapshotError as error:
        found = [str(error)]
    done.problems += found
    if found and repair:
        try:
            with locked(lock_of(memory, path.name), refuse=f"{path}: in use, so not moved aside"):
                done.moved.append(move_aside(path))
        except LockedError as error:
            done.past_repair(str(error))


def _verify_batch(done: Verified, batch: Batch, repair: bool) -> None:
    for number in track(batch.attempted(), f"memory verifying {batch.name}", "shard"):
        done.read(batch.outcome(number), batch.sums(number), batch.tar(number))
        found = list(damaged_outcomes(batch, number))
        if not found and batch.sums(number).exists() and not is_whole_json(batch.sums(number)):
            found = [batch.sums(number)]
        done.problems += [f"{path}: {WRITTEN}" for path in found]
        if found and repair:
            done.moved += set_shard_aside(batch, number)
            continue
        for folder in sorted(batch.path.glob("features-*")):
            _verify_features(done, folder, number, repair)


def _verify_features(done: Verified, folder: Path, number: int, repair: bool) -> None:
    record = record_path(folder, number)
    done.read(record, *(part(folder, kind, number) for kind in KINDS))
    found = damaged_features(folder, number)
    if record.exists() and not found and not is_whole_json(record):
        found = [record]
    done.problems += [f"{path}: its bytes are not those that were embedded" for path in found]
    if found and repair:
        done.moved += set_features_aside(folder, number, found)


def _verify_selection(done: Verified, folder: Path, repair: bool) -> None:
    done.read(*folder.glob("*"))
    found = list(damaged_selection(folder))
    if not found and not is_whole_json(folder / SELECTION):
        found = [folder / SELECTION]
    done.problems += [f"{path}: {WRITTEN}" for path in found]
    if found and repair:
        shutil.rmtree(folder)  # it is listed again
        done.mend(folder, *done.problems[-len(found) :])
