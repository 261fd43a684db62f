"""Digests: the identity of artifacts, and hashes of files that are not read twice."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmore.files.errors import is_shortage
from xmore.files.locks import locked
from xmore.files.paths import write_whole

SAVE_EVERY, REST = 1.0, 20  # seconds from save to save, and so many times as long as one takes

log = logging.getLogger(__name__)


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


def has_digest(path: Path, sha256: str) -> bool:
    """Return whether a file has this sha256. It is read once a process: see `_compared`."""
    if not path.is_file():
        return False
    stat = path.stat()
    stamp = (str(path), stat.st_size, stat.st_mtime_ns, sha256)
    if stamp not in _compared:
        if digest_file(path) != sha256:
            return False
        _compared.add(stamp)
    return True


def compare_again() -> None:
    """Let `has_digest` read all files again, also those that have the same size and time."""
    _compared.clear()


_compared = set[tuple[str, int, int, str]]()  # path, size, time and sha256 of files that were whole


class FactCache:
    """Facts about files (hash, verdict), valid while size and modification time stay the same.

    One file per folder of files: the sha256 of the rest, and JSON. If it is lost, damaged or
    cannot be written, the facts are computed again. Memory: about 200 bytes per file.
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
        self.facts = _read_facts(self.path)
        self.changed = False
        self._due = 0.0  # when `save_now_and_then` saves
        self._asked: dict[str, list[int] | None] = {}  # states of files without a fact

    def get(self, name: str) -> Any | None:
        """Return the fact kept for `name`; None if there is none or its file has changed."""
        stamp, entry = self._stamp(name), self.facts.get(name)
        if entry and stamp is not None and entry[0] == stamp:
            return entry[1]
        self._asked[name] = stamp
        return None

    def kept(self, name: str) -> Any | None:
        """Return the fact kept for `name`, even if its file has changed; None if there is none."""
        entry = self.facts.get(name)
        return entry[1] if entry else None

    def put(self, name: str, fact: Any) -> None:
        """Keep `fact` (JSON), which was computed after `get`, for this state of the file.

        If the file has changed since `get`, the fact may be that of either state and is not kept.
        """
        stamp = self._stamp(name)
        if stamp is not None and self._asked.pop(name, stamp) == stamp:
            self.facts[name] = [stamp, fact]
            self.changed = True

    def drop(self, name: str) -> None:
        """Forget the fact kept for `name`."""
        self.changed |= self.facts.pop(name, None) is not None

    def save(self, names: Sequence[str]) -> None:
        """Write the facts of `names` if any fact is new; facts of other names are dropped."""
        if self.changed:
            kept = {name: self.facts[name] for name in names if name in self.facts}
            try:
                text = json.dumps(kept)
                with locked(self.path.with_suffix(".lock")):
                    for leftover in self.path.parent.glob(f".{self.path.name}.*.tmp"):
                        leftover.unlink()  # of a killed writer
                    write_whole(self.path, f"{digest_text(text)}\n{text}".encode())
            except OSError as error:
                what = "%s: cannot be written (%s); its files are read again next time"
                log.warning(what, self.path, error.strerror)
            self.changed = False

    def save_now_and_then(self, names: Sequence[str]) -> None:
        """Save if the last time is SAVE_EVERY seconds ago, or longer if saving takes long."""
        now = time.monotonic()
        if now >= self._due:
            self.save(names)
            spent = time.monotonic() - now
            self._due = now + max(SAVE_EVERY, REST * spent)

    def _stamp(self, name: str) -> list[int] | None:
        """Return the size and time of a name's file; None if it is gone or has none."""
        file = self.file_of(name)
        if file is None:
            return None
        try:
            stat = (self.root / file).stat()
        except (OSError, ValueError):
            return None
        return [stat.st_size, stat.st_mtime_ns]


def holds_facts(path: Path) -> bool:
    """Return whether the file of a FactCache is as it was written; an older one has no checksum."""
    try:
        _parsed(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if is_shortage(error):
            raise
        return False
    return True


def _parsed(data: bytes) -> Any:
    """Return the JSON of a FactCache's file. Raises ValueError."""
    if data.startswith(b"{"):
        return json.loads(data)  # of an older version
    checksum, _, text = data.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != checksum:
        raise ValueError("its content differs from its checksum")
    return json.loads(text)


def _read_facts(path: Path) -> dict[str, list[Any]]:
    try:
        facts = _parsed(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if is_shortage(error):
            raise
        return {}
    if not isinstance(facts, dict):
        return {}
    return {k: v for k, v in facts.items() if isinstance(v, list) and len(v) == 2}


def cached_digest(path: Path, cache_folder: Path) -> str:
    """Return the sha256 of one large file (weights); it is read again only if it has changed."""
    cache = FactCache(cache_folder, path.parent, f"sha256-{path.name}")
    digest = cache.get(path.name)
    if digest is None:
        digest = digest_file(path)
        cache.put(path.name, digest)
        cache.save([path.name])
    return digest
