"""Local pairs: a folder of images and a table of their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xmore.config.sources import ImageFolderConfig
from xmore.files.digests import FactCache, digest_file, digest_of
from xmore.files.errors import DatasetError, is_shortage
from xmore.files.progress import track
from xmore.files.tables import as_text, read_columns


@dataclass(frozen=True)
class FolderPairs:
    """Image-text pairs in the order of their file. Memory: about 300 bytes per pair."""

    folder: Path
    paths: list[str]  # relative to the folder
    captions: list[str | None]  # may be empty; None if it is not UTF-8
    hashes: list[str | None]  # sha256 of each image; None if it cannot be read
    bad: list[str]  # lines of the table that cannot be read: number, and what is wrong

    @property
    def digest(self) -> str:
        """Digest of the names, the captions and the images' bytes."""
        content = [self.paths, self.captions, self.hashes]
        return digest_of([*content, self.bad] if self.bad else content)


def read_pairs(source: ImageFolderConfig, cache: Path) -> FolderPairs:
    """Read the captions and hash the images (unchanged ones only once). Raises DatasetError."""
    file = source.captions
    if not source.folder.is_dir():
        raise DatasetError(f"{source.folder}: no such folder of images. Correct `images.folder`.")
    if not file.is_file():
        what = "is a folder, not a file" if file.is_dir() else "no such file"
        raise DatasetError(f"{file}: {what}. Correct `images.captions`.")
    table, bad = read_columns(file, ["path", "caption"], ".parquet")
    paths = as_text(table["path"], f"{file}: column `path`").fill_null("").to_pylist()
    given = table["caption"].is_null().to_pylist()
    read = as_text(table["caption"], f"{file}: column `caption`", "null").to_pylist()
    texts = ["" if none else text for none, text in zip(given, read, strict=True)]
    if not paths and not bad:
        raise DatasetError(f"{file}: has no rows.")
    facts = FactCache(cache, source.folder, "memory")
    hashes = [_hash(source.folder, p, facts) for p in track(paths, "memory reading", "image")]
    facts.save(paths)
    return FolderPairs(source.folder, paths, texts, hashes, bad)


def _hash(folder: Path, path: str, facts: FactCache) -> str | None:
    try:
        place = (folder / path).resolve()
        if not place.is_relative_to(folder.resolve()) or not place.is_file():
            return None  # a path from data never leaves its folder; a pipe would never end
        known = facts.get(path)
        if known is None:
            known = digest_file(folder / path)
            facts.put(path, known)
        return known
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: it has a NUL
        if is_shortage(error):
            raise
        return None
