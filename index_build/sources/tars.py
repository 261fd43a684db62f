"""Local webdataset shards: list what they contain without unpacking anything."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base.tables import as_parquet
from xmore.config.sources import TarsConfig
from xmore.files.digests import digest_file, digest_of
from xmore.files.errors import DatasetError, passed_over
from xmore.files.paths import is_text, write_whole
from xmore.files.progress import track
from xmore.images.decode import IMAGE_SUFFIXES
from xmore.images.webdataset import Member, Shard

TARS = (".tar", ".tar.gz", ".tgz")
OTHER_TARS = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
MAX_TEXT_BYTES = 1_000_000
EMPTY = "empty file"
OTHER = "another extension"  # of an image that is not asked for, such as a mask: no failure
NO_CAPTION = "no caption"
UNREADABLE = "unreadable caption"
LISTING = pa.schema(
    [
        ("member", pa.string()),
        ("caption", pa.string()),
        ("memory_key", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
COUNTED = LISTING.append(pa.field("cause", pa.string()))  # of a row that is not in the memory


def list_tars(folder: Path) -> list[Path]:
    """Return the folder's tars, sorted by name. Raises DatasetError."""
    found = sorted(p for p in folder.glob("*") if p.name[0] != "." and not p.is_dir())
    for path in found:
        if path.name.lower().endswith(OTHER_TARS):
            raise DatasetError(
                f"{path}: only {', '.join(TARS)} are read. Compress it with gzip, or not at all."
            )
    tars = [path for path in found if path.name.lower().endswith(TARS)]
    if not tars:
        raise DatasetError(f"{folder}: has no {' or '.join(TARS)}. Correct `tars.folder`.")
    for path in tars:
        if not is_text(path.name):
            raise DatasetError(f"{folder}: {path.name!r} is not UTF-8. Rename this tar.")
        if not path.is_file():
            raise DatasetError(f"{path}: is no file, or leads to none. Remove it from the folder.")
    return tars


def listings(
    tars: list[Path], source: TarsConfig, cache: Path, max_bytes: int
) -> Iterator[tuple[Path, pa.Table]]:
    """Yield each tar with one row per image or fault (COUNTED), in its order.

    Unchanged tars are cached, in a file named by its own checksum. Raises DatasetError.
    """
    how = [max_bytes, sorted(_image_extensions(source)), source.captions]
    for path in track(tars, "memory reading", "tar"):
        stat = path.stat()
        stamp = digest_of([str(path.resolve()), stat.st_size, stat.st_mtime_ns, *how])
        kept = f"shard-{stamp[:16]}"
        table = _kept(cache, kept)
        if table is None:
            table = _read(path, source, max_bytes)
            data = as_parquet(table)
            write_whole(cache / f"{kept}-{hashlib.sha256(data).hexdigest()[:16]}.parquet", data)
        yield path, table


def is_whole_listing(path: Path) -> bool:
    """Return whether a cached listing is as it was written; older names have no checksum."""
    _, _, checksum = path.stem.removeprefix("shard-").partition("-")
    return not checksum or digest_file(path).startswith(checksum)


def _kept(cache: Path, name: str) -> pa.Table | None:
    for path in sorted(cache.glob(f"{name}*.parquet")):
        with passed_over(OSError, pa.ArrowInvalid):
            table = pq.read_table(path, partitioning=None) if is_whole_listing(path) else None
            if table is not None and table.schema == COUNTED:
                return table
    return None


def digest_listings(content: Iterator[tuple[Path, pa.Table]], folder: Path) -> list[list[str]]:
    """Return (name, digest) of each tar. Raises DatasetError if no image at all has a caption."""
    digests, captioned, causes = [], False, Counter[str]()
    for path, table in content:
        cause = table["cause"]
        # An empty image is a row like the others here: so it was when listings had no causes.
        rows = table.filter(pc.fill_null(pc.equal(cause, EMPTY), pc.is_null(cause)))
        digest = digest_of(rows.select(LISTING.names).to_pydict())
        found = Counter(value for value in cause.to_pylist() if value)
        if failures := {cause: n for cause, n in found.items() if cause not in (EMPTY, OTHER)}:
            digest = digest_of([digest, failures])
        digests.append([path.name, digest])
        captioned = captioned or any(rows["caption"].to_pylist())
        causes += found
    if not captioned:
        counts = ", ".join(f"{n} {cause}" for cause, n in causes.most_common())
        raise DatasetError(
            f"{folder}: no image in its tars has a caption ({counts or 'no images'}). Name the "
            "members that have it: `tars.captions`, e.g. [cap, json.TEXT]; and `tars.images`."
        )
    return digests


def _read(path: Path, source: TarsConfig, max_bytes: int) -> pa.Table:
    """List a tar. Memory: one image and the tar's captions."""
    rows: dict[str, dict[str, Any]] = {}  # by key
    faults: list[dict[str, Any]] = []
    captions = _Captions(source.caption_places)
    images = _image_extensions(source)
    with Shard(path, images | set(captions.extensions)) as shard:
        for member in shard:
            if member.extension not in images:
                if not captions.add(member, shard):
                    faults.append({"cause": "second caption of a key"})
            elif member.key in rows:
                faults.append({"cause": "second image of a key"})
            else:
                rows[member.key] = _image(member, shard, max_bytes)
    for key, row in rows.items():
        caption, cause = captions.of(key)
        row |= {"caption": caption} | ({"cause": cause} if cause and not row.get("cause") else {})
    passed = sum(shard.others[suffix.removeprefix(".")] for suffix in IMAGE_SUFFIXES)
    faults += [{"cause": OTHER}] * passed
    if shard.fault:
        faults.append({"cause": shard.fault})
    return pa.Table.from_pylist([*rows.values(), *faults], schema=COUNTED)


def _image_extensions(source: TarsConfig) -> set[str]:
    return set(source.images) or {suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES}


def _image(member: Member, shard: Shard, max_bytes: int) -> dict[str, Any]:
    """Return a row without its caption, or a cause."""
    if member.cause or member.size > max_bytes:
        return {"cause": member.cause or "too many bytes"}  # a size may be beyond 64 bits
    data = shard.read(member, max_bytes)
    if len(data) < member.size:
        return {"cause": "truncated or damaged"}
    return {
        "member": member.name,
        "memory_key": hashlib.sha256(data).hexdigest(),
        "offset": member.offset,
        "bytes": member.size,
        "cause": None if data else EMPTY,
    }


class _Captions:
    """The captions of a tar's keys, each from the first of the places that has one."""

    def __init__(self, places: list[tuple[str, str | None]]) -> None:
        self.places = places
        self.extensions = [extension for extension, _ in places]
        self.seen: set[tuple[str, str]] = set()
        self.best: dict[str, tuple[int, str]] = {}  # key -> place in `places`, caption
        self.causes: dict[str, str] = {}

    def add(self, member: Member, shard: Shard) -> bool:
        """Read a member; return False if its key has one of this extension already."""
        if (member.key, member.extension) in self.seen:
            return False
        self.seen.add((member.key, member.extension))
        data = b"" if member.cause else shard.read(member, MAX_TEXT_BYTES)
        if member.cause or len(data) < member.size:
            self.causes[member.key] = UNREADABLE
            return True
        try:
            text = data.decode("utf-8-sig")
            asked = [key for extension, key in self.places if extension == member.extension]
            found: dict[str | None, str] = _strings(text) if any(asked) else {None: text}
            for rank, place in enumerate(self.places):
                if place[0] == member.extension and (caption := found.get(place[1])) is not None:
                    caption.encode()  # JSON may hold half of a surrogate pair
                    if member.key not in self.best or rank < self.best[member.key][0]:
                        self.best[member.key] = (rank, caption.strip())
        except (ValueError, RecursionError):
            self.causes[member.key] = UNREADABLE
        return True

    def of(self, key: str) -> tuple[str, str | None]:
        """Return a key's caption, and the cause if there is none."""
        if key in self.best:
            return self.best[key][1], None
        return "", self.causes.get(key, NO_CAPTION)


def _strings(text: str) -> dict[str | None, str]:
    """Return the strings of a JSON mapping; of a list, its first. Raises ValueError."""
    facts = json.loads(text, parse_int=float)  # Python refuses an integer of 5000 digits
    if not isinstance(facts, dict):
        return {}
    first: dict[str | None, Any] = {
        key: next((item for item in value if isinstance(item, str)), None)
        if isinstance(value, list)
        else value
        for key, value in facts.items()
    }
    return {key: value for key, value in first.items() if isinstance(value, str)}
