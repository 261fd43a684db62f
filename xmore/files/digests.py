"""Digests: the identity of artifacts, and hashes of files that are not read twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmore.files.paths import write_whole


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of the sorted JSON of `value`.

    Raises ValueError for NaN and TypeError for types that JSON does not have.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_text(text: str) -> str:
    """Return the sha256 (hex) of a text's UTF-8 bytes: the key of a caption."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 (hex) of a file, which is read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FactCache:
    """Facts about files (hash, verdict), valid while size and modification time stay the same.

    One JSON file per folder of files. If it is lost, the facts are computed again. Memory: about
    200 bytes per file.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        purpose: str,
        file_of: Callable[[str], str | None] = lambda name: name,
    ) -> None:
        """Open the cache in `folder` for files under `root`, one cache per `purpose`.

        A name is the path of a file under `root`, unless `file_of` maps it to the file that
        contains it. If `file_of` returns None, nothing is kept for that name.
        """
        name = digest_of([str(root.resolve()), purpose])[:16]
        self.path = folder / f"{purpose}-{name}.json"
        self.root, self.file_of = root, file_of
        self.facts: dict[str, list[Any]] = {}
        self.changed = False
        if self.path.exists():
            try:
                self.facts = json.loads(self.path.read_bytes())
            except ValueError:
                self.facts = {}

    def get(self, name: str) -> Any | None:
        """Return the fact kept for `name`; None if there is none or its file has changed."""
        entry = self.facts.get(name)
        return entry[1] if entry and entry[0] == self._stamp(name) else None

    def put(self, name: str, fact: Any) -> None:
        """Keep `fact` (JSON) for the current state of the file."""
        if self.file_of(name) is not None:
            self.facts[name] = [self._stamp(name), fact]
            self.changed = True

    def save(self, names: Sequence[str]) -> None:
        """Write the facts of `names` if any fact is new; facts of other names are dropped."""
        if self.changed:
            kept = {name: self.facts[name] for name in names if name in self.facts}
            write_whole(self.path, json.dumps(kept).encode())
            self.changed = False

    def _stamp(self, name: str) -> list[int]:
        stat = (self.root / str(self.file_of(name))).stat()
        return [stat.st_size, stat.st_mtime_ns]


def cached_digest(path: Path, cache_folder: Path) -> str:
    """Return the sha256 of one large file (weights); it is read again only if it has changed."""
    cache = FactCache(cache_folder, path.parent, f"sha256-{path.name}")
    digest = cache.get(path.name)
    if digest is None:
        digest = digest_file(path)
        cache.put(path.name, digest)
        cache.save([path.name])
    return digest
