"""Digests: what makes two artifacts the same, and hashes of files that are not read twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmore.files.paths import write_whole


def digest_of(value: Any) -> str:
    """sha256 (hex) over the sorted JSON of `value`; NaN and unknown types raise."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_text(text: str) -> str:
    """sha256 (hex) of a text's UTF-8 bytes: the key of a caption."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FactCache:
    """Facts about files (hash, verdict), kept while size and modification time stay the same.

    One JSON file per folder of files; losing it costs time, never truth. About 200 bytes a file
    in memory.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        purpose: str,
        file_of: Callable[[str], str | None] = lambda name: name,
    ) -> None:
        """`folder` holds the caches, `root` the files; `purpose` keeps unlike facts apart.

        A name is that of a file, or `file_of` tells the file that it is a part of; none: nothing
        is kept of it.
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
        """The fact kept for the file `name` under the root, None if it has changed since."""
        entry = self.facts.get(name)
        return entry[1] if entry and entry[0] == self._stamp(name) else None

    def put(self, name: str, fact: Any) -> None:
        """Keep `fact` (JSON) for the file as it is now."""
        if self.file_of(name) is not None:
            self.facts[name] = [self._stamp(name), fact]
            self.changed = True

    def save(self, names: Sequence[str]) -> None:
        """Write the facts of `names`; those of files that are gone are forgotten."""
        if self.changed:
            kept = {name: self.facts[name] for name in names if name in self.facts}
            write_whole(self.path, json.dumps(kept).encode())
            self.changed = False

    def _stamp(self, name: str) -> list[int]:
        stat = (self.root / str(self.file_of(name))).stat()
        return [stat.st_size, stat.st_mtime_ns]


def cached_digest(path: Path, cache_folder: Path) -> str:
    """sha256 of one large file (weights), read again only when it has changed."""
    cache = FactCache(cache_folder, path.parent, f"sha256-{path.name}")
    digest = cache.get(path.name)
    if digest is None:
        digest = digest_file(path)
        cache.put(path.name, digest)
        cache.save([path.name])
    return digest
