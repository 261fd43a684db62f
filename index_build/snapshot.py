"""Publish a memory's snapshot: manifest last, verified, one rename, then CURRENT."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.plan import Plan
from xmore.digest import digest_file, digest_of
from xmore.errors import SnapshotError
from xmore.memory import Snapshot, embedding_blocks, read_snapshot
from xmore.paths import fsync_dir, fsync_file, write_whole
from xmore.progress import track
from xmore.store import move_aside

ROW_FOLDERS = ("img_emb", "text_emb", "metadata")


def hash_files(folder: Path) -> list[dict[str, Any]]:
    """Names, sizes and checksums of a snapshot's files, for its manifest."""
    return [
        {
            "file": str(path.relative_to(folder)),
            "bytes": path.stat().st_size,
            "sha256": digest_file(path),
        }
        for path in track(_files(folder), "memory hashing", "file")
    ]


def write_manifest(plan: Plan, files: list[dict[str, Any]], facts: dict[str, Any]) -> Snapshot:
    """Describe what lies in the features folder: files, digests and `facts`. Not published."""
    folder, model = plan.features_folder, plan.model
    rows_only = [[f["file"], f["sha256"]] for f in files if f["file"].split("/")[0] in ROW_FOLDERS]
    manifest = {
        "digest": digest_of([rows_only, model.identity]),
        "plan": plan.digest,
        "model": {"name": model.name, "identity": model.identity},
        "files": files,
        **facts,
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    write_whole(folder / "manifest.json", text.encode())
    return read_snapshot(folder)


def publish(plan: Plan, snapshot: Snapshot) -> str:
    """Turn the features folder into a snapshot and point CURRENT to it; returns its name.

    The name is of the rows' content and of the plan. Raises SnapshotError where `check_rows`
    finds a fault; nothing is published then.
    """
    faults = check_rows(snapshot)
    if faults:
        raise SnapshotError(
            f"{faults[0]}. Nothing was published. Remove {snapshot.path} and {snapshot.path}.done "
            "to have all embedded anew."
        )
    name = digest_of([snapshot.digest, plan.digest])[:16]
    target = plan.config.memory / "snapshots" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in _files(snapshot.path):
        fsync_file(path)
    if target.exists():
        move_aside(target)  # a whole one would have been found before any work was done
    os.rename(snapshot.path, target)
    fsync_dir(target.parent)
    point_current(plan, name)
    return name


def point_current(plan: Plan, name: str) -> None:
    """Make `name` the snapshot that new runs read, and clear away what is not needed to go on."""
    current = plan.config.memory / "CURRENT"
    if not current.exists() or current.read_text().strip() != name:
        write_whole(current, f"{name}\n".encode())
    kept = {plan.rows_folder.name, plan.images_folder.name}
    work = plan.config.memory / "making"
    for path in work.iterdir() if work.is_dir() else ():
        # Downloads stay: another model embeds them anew without asking the servers again.
        if path.name.split(".")[0] not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_rows(snapshot: Snapshot) -> list[str]:
    """Faults in a snapshot's content: rows that are no unit vectors or have no key, its index."""
    from xmore.search import open_index  # brings torch, which an unchanged re-index never needs

    faults = []
    try:
        for _ in embedding_blocks(snapshot):  # checks each row
            pass
    except SnapshotError as error:
        faults.append(str(error))
    for shard in snapshot.shards:
        keys = pq.read_table(shard.metadata, columns=["memory_key"])["memory_key"]
        if keys.null_count or not pc.all(pc.equal(pc.utf8_length(keys), 64)).as_py():
            faults.append(f"{shard.metadata}: has rows without a memory_key")
            break
    try:
        open_index(snapshot.index_path, snapshot.rows, snapshot.dim)
    except SnapshotError as error:
        faults.append(str(error))
    return faults


def verify_snapshot(snapshot: Snapshot) -> list[str]:
    """Faults of a snapshot, each of its bytes read."""
    return [
        f"{snapshot.path / file['file']}: its bytes are not those that were published"
        for file in snapshot.manifest["files"]
        if digest_file(snapshot.path / file["file"]) != file["sha256"]
    ]


def _files(folder: Path) -> list[Path]:
    names = [path for kind in ROW_FOLDERS for path in sorted((folder / kind).glob("*"))]
    index = folder / "image.index"
    return [*names, index] if index.exists() else names
