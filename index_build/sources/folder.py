"""Local pairs: a folder of images and a Parquet file of their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.config.sources import ImageFolderConfig
from xmore.files.digests import FactCache, digest_file, digest_of
from xmore.files.errors import DatasetError
from xmore.files.progress import track


@dataclass(frozen=True)
class FolderPairs:
    """Image-text pairs in the order of their file. Memory: about 300 bytes per pair."""

    folder: Path
    paths: list[str]  # relative to the folder
    captions: list[str]  # may be empty
    hashes: list[str | None]  # sha256 of each image; None if it cannot be read

    @property
    def digest(self) -> str:
        """Digest of the names, the captions and the images' bytes."""
        return digest_of([self.paths, self.captions, self.hashes])


def read_pairs(source: ImageFolderConfig, cache: Path) -> FolderPairs:
    """Read the captions and hash the images (unchanged ones only once). Raises DatasetError."""
    if not source.folder.is_dir():
        raise DatasetError(f"{source.folder}: no such folder of images. Correct `images.folder`.")
    if not source.captions.is_file():
        raise DatasetError(f"{source.captions}: no such file. Correct `images.captions`.")
    try:
        table = pq.read_table(source.captions, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"{source.captions}: must be Parquet with the columns `path` and `caption` ({error})."
        ) from error
    for column in ("path", "caption"):
        if column not in table.column_names:
            raise DatasetError(
                f"{source.captions}: no column `{column}`; it has {', '.join(table.column_names)}."
            )
    paths = [path or "" for path in table["path"].cast(pa.string()).to_pylist()]
    texts = [text or "" for text in table["caption"].cast(pa.string()).to_pylist()]
    if not paths:
        raise DatasetError(f"{source.captions}: has no rows.")
    facts = FactCache(cache, source.folder, "memory")
    hashes = [_hash(source.folder, p, facts) for p in track(paths, "memory reading", "image")]
    facts.save(paths)
    return FolderPairs(source.folder, paths, texts, hashes)


def _hash(folder: Path, path: str, facts: FactCache) -> str | None:
    try:
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            return None  # a path from untrusted data never leaves its folder
        if not (folder / path).is_file():
            return None  # to open a pipe would wait for ever
        known = facts.get(path)
        if known is None:
            known = digest_file(folder / path)
            facts.put(path, known)
        return known
    except (OSError, RuntimeError, ValueError):  # ValueError: a null byte
        return None
