"""Publish a memory's snapshot: manifest last, one rename, then CURRENT; and verify one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from xmore.digest import digest_file, digest_of
from xmore.memory import Snapshot
from xmore.models import ModelCard
from xmore.paths import fsync_dir, fsync_file, write_whole

ROW_FOLDERS = ("img_emb", "text_emb", "metadata")


def publish(staging: Path, memory: Path, model: ModelCard, facts: dict[str, Any]) -> str:
    """Turn a staging folder into a snapshot and point CURRENT to it; returns its name.

    `facts` go into the manifest beside counts and checksums. The name is the beginning of the
    content's digest: the same rows make the same snapshot.
    """
    files: list[dict[str, Any]] = [
        {
            "file": str(path.relative_to(staging)),
            "bytes": path.stat().st_size,
            "sha256": digest_file(path),
        }
        for path in _files(staging)
    ]
    rows_only = [[f["file"], f["sha256"]] for f in files if f["file"].split("/")[0] in ROW_FOLDERS]
    digest = digest_of([rows_only, model.identity])
    by_name = {file["file"]: file["sha256"] for file in files}
    if facts["index"]:
        facts["index"]["sha256"] = by_name["image.index"]
    manifest = {
        "digest": digest,
        "model": {"name": model.name, "identity": model.identity},
        "files": files,
        **facts,
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    write_whole(staging / "manifest.json", text.encode())
    name = digest[:16]
    target = memory / "snapshots" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in _files(staging):
        fsync_file(path)
    if not target.exists():
        os.rename(staging, target)
        fsync_dir(target.parent)
    write_whole(memory / "CURRENT", f"{name}\n".encode())
    return name


def verify_snapshot(snapshot: Snapshot) -> list[str]:
    """Faults of a snapshot, each of its bytes read."""
    return [
        f"{snapshot.path / file['file']}: its bytes are not those that were published"
        for file in snapshot.manifest["files"]
        if digest_file(snapshot.path / file["file"]) != file["sha256"]
    ]


def _files(staging: Path) -> list[Path]:
    names = [path for folder in ROW_FOLDERS for path in sorted((staging / folder).glob("*"))]
    index = staging / "image.index"
    return [*names, index] if index.exists() else names
