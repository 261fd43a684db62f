"""The wanted rows of a source on disk: complete, and as they were written.

    <memory>/making/wanted-<digest>/00000.parquet ... selection.json

selection.json is written last and has the sha256 of each file; older ones have none.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from xmore.files.digests import digest_file, has_digest
from xmore.files.paths import fsync_dir, write_whole
from xmore.files.sealed import sealed, unsealed

SELECTION = "selection.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selected:
    """The result of the selection."""

    asked: int  # requested rows, each (url, caption) once
    failures: dict[str, int]  # requested rows that cannot be downloaded, by cause
    filtered: dict[str, int]  # rows that the filters excluded, by filter; not in `asked`
    shards: int
    first_bad: str = ""  # the first line of the list that cannot be read


def publish_selection(partial: Path, folder: Path, selected: Selected) -> None:
    """Mark `partial` as complete, and rename it to `folder`."""
    sums = {path.name: digest_file(path) for path in sorted(partial.glob("*.parquet"))}
    write_whole(partial / SELECTION, sealed(asdict(selected) | {"sums": sums}))
    os.rename(partial, folder)
    fsync_dir(folder.parent)


def read_selection(folder: Path) -> Selected | None:
    """Read what `publish_selection` wrote; None if it is absent, or damaged and therefore deleted.

    Each file is read once a process. Older selections have no checksums.
    """
    if not (folder / SELECTION).exists():
        return None
    problem = next(damaged_selection(folder), None)
    if problem:
        log.warning("%s: its bytes are not those that were written; listing again", problem)
        shutil.rmtree(folder)
        return None
    facts = unsealed((folder / SELECTION).read_bytes())
    facts.pop("sums", None)
    return Selected(**facts)


def damaged_selection(folder: Path) -> Iterator[Path]:
    """Yield which files of a selection are not as they were written; read once a process."""
    try:
        sums = unsealed((folder / SELECTION).read_bytes()).get("sums", {}).items()
    except (ValueError, AttributeError):
        yield folder / SELECTION
        return
    for name, sha256 in sums:
        if not has_digest(folder / name, sha256):
            yield folder / name
