"""Artifacts' manifests, and whether their files have the bytes that were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xmore.files.digests import digest_file, has_digest
from xmore.files.errors import ArtifactError, is_shortage
from xmore.store.contracts import ArtifactManifest, read_contract

MANIFEST = "manifest.json"
DIFFERS = "its bytes differ from those that were written (sha256)"


def read_manifest(path: Path) -> dict[str, Any]:
    """Read an artifact's manifest. Raises ArtifactError, also if it is another artifact's."""
    if not path.is_dir():
        raise ArtifactError(
            f"{path}: is gone: moved aside as damaged, or deleted. Run its benchmark again"
        )
    try:
        manifest = read_contract(path / MANIFEST, ArtifactManifest)
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise
        raise ArtifactError(f"{path / MANIFEST}: unreadable ({error})") from error
    if manifest.get("digest", "") not in ("", path.name.partition(".")[0]):
        raise ArtifactError(f"{path / MANIFEST}: is the manifest of {manifest['digest']}")
    return manifest


def check_hashes(path: Path) -> list[str]:
    """Return the problems found in an artifact by reading every byte."""
    return _problems(path, lambda part: digest_file(path / part["file"]) != part["sha256"])


def check_once(path: Path) -> list[str]:
    """Return the problems found as `check_hashes` does; a part is read once a process."""
    return _problems(path, lambda part: not is_whole(path, part))


def _problems(path: Path, differs: Callable[[dict[str, Any]], bool]) -> list[str]:
    """Return what is wrong with a manifest, else with the parts' sizes, else what `differs`."""
    try:
        parts = read_manifest(path)["parts"]
    except ArtifactError as error:
        return [str(error)]
    problems = []
    for part in parts:
        file = path / part["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != part["bytes"]:
            have = "is absent" if size is None else f"has {size} bytes"
            problems.append(f"{file} {have}, its manifest says {part['bytes']}")
    return problems or [f"{path / part['file']}: {DIFFERS}" for part in parts if differs(part)]


def is_whole(path: Path, part: dict[str, Any]) -> bool:
    """Return whether a part has the bytes that were written; it is read once a process."""
    return has_digest(path / part["file"], part["sha256"])
