"""Local webdataset shards: list what they contain without unpacking anything."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index_build.base.tables import write_table
from xmore.files.digests import digest_of
from xmore.files.errors import DatasetError
from xmore.files.progress import track
from xmore.images.decode import IMAGE_SUFFIXES

MAX_TEXT_BYTES = 1_000_000
LISTING = pa.schema(
    [
        ("member", pa.string()),
        ("caption", pa.string()),
        ("memory_key", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
    ]
)


def list_tars(folder: Path) -> list[Path]:
    """Return the folder's tars, sorted by name. Raises DatasetError."""
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise DatasetError(f"{folder}: has no *.tar. Correct `tars.folder`.")
    return tars


def listings(tars: list[Path], cache: Path, max_bytes: int) -> Iterator[tuple[Path, pa.Table]]:
    """Yield each tar with one row per image (LISTING), in its order; unchanged tars are cached."""
    for path in track(tars, "memory reading", "tar"):
        stat = path.stat()
        stamp = digest_of([str(path.resolve()), stat.st_size, stat.st_mtime_ns, max_bytes])
        kept = cache / f"tar-{stamp[:16]}.parquet"
        with suppress(OSError, pa.ArrowInvalid):
            yield path, pq.read_table(kept, partitioning=None)
            continue
        table = _read(path, max_bytes)
        write_table(kept, table)
        yield path, table


def _read(path: Path, max_bytes: int) -> pa.Table:
    """List a tar. Memory: one image and the tar's captions."""
    images: dict[str, tuple[str, str, int, int]] = {}
    captions: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                ending = f".{ending.rpartition('.')[2].lower()}"
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    continue
                if ending in IMAGE_SUFFIXES and member.size <= max_bytes:
                    digest = hashlib.sha256(stream.read()).hexdigest()
                    images[key] = (member.name, digest, member.offset_data, member.size)
                elif ending in (".txt", ".json") and member.size <= MAX_TEXT_BYTES:
                    text = stream.read().decode("utf-8", "replace")
                    if ending == ".txt":
                        captions[key] = text.strip()
                    else:
                        captions.setdefault(key, _caption(text))
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(f"{path}: not a readable tar ({error}).") from error
    rows = [
        {"member": name, "caption": captions.get(key, ""), "memory_key": digest, "offset": at,
         "bytes": size}
        for key, (name, digest, at, size) in images.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=LISTING)


def _caption(text: str) -> str:
    with suppress(ValueError):
        facts = json.loads(text)
        if isinstance(facts, dict) and isinstance(facts.get("caption"), str):
            return facts["caption"].strip()
    return ""
