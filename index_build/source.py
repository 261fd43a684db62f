"""Where a memory's rows come from: a folder of images and a Parquet file of their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.digest import FactCache, digest_file, digest_of
from xmore.errors import DatasetError


@dataclass(frozen=True)
class Pairs:
    """Image-text pairs in the order of their file. About 200 bytes a pair."""

    images: Path
    paths: list[str]  # relative to images
    captions: list[str]  # may be empty
    digest: str  # of names, captions and the images' bytes


def read_pairs(images: Path, captions: Path, cache: Path) -> Pairs:
    """Read the captions and hash the images (unchanged ones once). Raises DatasetError."""
    if not images.is_dir():
        raise DatasetError(f"{images}: no such folder of images. Correct `images`.")
    try:
        table = pq.read_table(captions, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{captions}: not a readable Parquet file ({error}).") from error
    for column in ("path", "caption"):
        if column not in table.column_names:
            raise DatasetError(
                f"{captions}: no column `{column}`; it has {', '.join(table.column_names)}."
            )
    paths = table["path"].cast(pa.string()).to_pylist()
    texts = [text or "" for text in table["caption"].cast(pa.string()).to_pylist()]
    if not paths:
        raise DatasetError(f"{captions}: has no rows.")
    facts = FactCache(cache, images, "memory")
    hashes = [_hash(images, path, facts) for path in paths]
    facts.save(paths)
    return Pairs(images, paths, texts, digest_of([paths, texts, hashes]))


def _hash(images: Path, path: str, facts: FactCache) -> str | None:
    """sha256 of an image, None where it cannot be read: the embedding counts it by cause."""
    try:
        known = facts.get(path)
        if known is None:
            known = digest_file(images / path)
            facts.put(path, known)
        return known
    except OSError:
        return None
