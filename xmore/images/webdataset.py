"""Webdataset's shards: the rule of their names, and their members, however damaged a tar may be.

A member's key is its path up to the first dot after the last slash; its extension is the rest, in
lower case: `a.b/c.seg.PNG` is the `seg.png` of `a.b/c`. A leading `./` belongs to no key.
"""

from __future__ import annotations

import errno
import gzip
import tarfile
import threading
import zlib
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from xmore.files.errors import DatasetError
from xmore.files.paths import shown

IMAGES = ("webp", "png", "jpg", "jpeg")  # extensions that CLIP_benchmark's builder accepts
MAX_HEADER = 1 << 20  # bytes of a long name or a PAX header
NO_END = "no end of archive"
DAMAGED = "damaged archive"
MORE = "data after the end of archive"
_MAGIC = b"\x1f\x8b"  # of gzip
_BLOCK = 1 << 20


def split_name(name: str) -> tuple[str, str] | None:
    """Return a member's (key, extension); None if it is hidden, macOS's own or has no dot."""
    while name.startswith("./"):
        name = name[2:]
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    if not (stem and dot) or "__MACOSX" in folder.split("/"):
        return None
    return folder + slash + stem, extension.lower()


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a shard, and where its bytes are."""

    name: str  # as in the tar; bytes that are not UTF-8 are written as `\xe9`
    key: str
    extension: str
    offset: int  # in the tar, or in what a compressed tar decompresses to
    size: int
    cause: str | None  # why it has no bytes to read


class Shard:
    """The members with some extensions of a plain or gzip tar, in its order; nothing is unpacked.

    Iteration ends at the first damage. After it, `fault` is its cause, or None if the tar was
    whole, and `others` counts the files that were passed over, by the last part of their names.
    Memory: 200 bytes per member. Raises DatasetError if nothing can be read.
    """

    def __init__(self, path: Path, extensions: Container[str]) -> None:
        self.path, self.extensions = path, extensions
        self.fault: str | None = None
        self.others = Counter[str]()
        self._begun = False
        try:
            self._stream = _open(path)
        except OSError as error:
            raise self._unread(error) from error
        self._headers = _Headers(self._stream)
        try:
            self._tar = tarfile.TarFile(
                fileobj=self._headers,  # type: ignore[arg-type]  # all that tarfile reads with
                encoding="utf-8",
                errors="surrogateescape",
            )
        except Exception as error:  # tarfile raises almost anything on damaged headers
            self._stream.close()
            if _of_the_system(error):
                raise self._unread(error) from error
            raise DatasetError(
                f"{path}: not a complete tar ({error}). Download it again."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Member]:
        in_place = not isinstance(self._stream, gzip.GzipFile)
        known: dict[str, tuple[int, int]] = {}  # what hard links may lead to
        while (info := self._next()) is not None:
            named = split_name(info.name)
            if named is None or info.isdir():
                continue
            if named[1] not in self.extensions:
                self.others[named[1].rpartition(".")[2]] += 1
                continue
            offset, size, cause = info.offset_data, info.size, None
            if info.islnk() and info.linkname in known:
                offset, size = known[info.linkname]
            elif info.islnk() or info.issym():
                cause = "link"
            elif info.issparse() or not info.isreg():
                cause = "not a regular file"
            elif in_place:  # a link in a compressed tar would decompress it again from its start
                known[info.name] = (offset, size)
            yield Member(shown(info.name), shown(named[0]), named[1], offset, size, cause)

    def read(self, member: Member, limit: int) -> bytes:
        """Return at most `limit` bytes of the member just iterated; fewer if the tar is cut."""
        try:
            self._stream.seek(member.offset)
            return self._stream.read(min(member.size, limit))
        except Exception as error:
            if _of_the_system(error):
                raise self._unread(error) from error
            return b""

    def _next(self) -> tarfile.TarInfo | None:
        try:
            if self._begun and self._cut():
                self.fault = NO_END
                return None
            self._begun = True
            info = self._tar.next()
            self._tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
            if info is None:
                self.fault = self._ending()
            elif info.size < 0 or self._tar.offset <= info.offset:  # would read it for ever
                self.fault = DAMAGED
            else:
                return info
        except Exception as error:  # tarfile raises almost anything on damaged headers
            if _of_the_system(error):
                raise self._unread(error) from error
            cut = self._headers.short or isinstance(error, EOFError)
            self.fault = NO_END if cut else DAMAGED
        return None

    def _cut(self) -> bool:
        """Go to the next header; return whether the tar ends before the last member does."""
        at = self._tar.offset
        if self._stream.tell() == at:
            return False
        self._stream.seek(at - 1)
        return not self._stream.read(1)

    def _ending(self) -> str | None:
        """Return what is wrong with the tar's end, whose first block is the last one read."""
        if self._headers.short:
            return NO_END
        if any(self._headers.last):
            return DAMAGED
        while block := self._stream.read(_BLOCK):
            if block.count(0) != len(block):
                return MORE
        return None

    def _unread(self, error: Exception) -> DatasetError:
        why = getattr(error, "strerror", None) or str(error)
        return DatasetError(f"{self.path}: no shard ({why}). Download it again.")


class _Headers:
    """What tarfile reads a tar with: bounded, and it keeps the last block."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read
        self.last, self.short = b"", False

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self._read(size)
        self.short = len(self.last) < size
        return self.last


class _Compressed(threading.local):
    """The compressed tar that a thread reads from: images in its order decompress it once."""

    stamp: tuple[str, int, int] | None = None
    stream: gzip.GzipFile | None = None

    def read(self, path: Path, offset: int, size: int) -> bytes:
        stat = path.stat()
        stamp = (str(path), stat.st_size, stat.st_mtime_ns)
        if self.stream is None or self.stamp != stamp:
            if self.stream is not None:
                self.stream.close()
            self.stream, self.stamp = gzip.GzipFile(path), stamp
        try:
            self.stream.seek(offset)  # backwards: from the start again
            return self.stream.read(size)
        except BaseException:
            self.stream.close()
            self.stream = None
            raise


_compressed = _Compressed()


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Return bytes of a tar, at an offset in what it decompresses to. Raises OSError.

    A compressed tar is decompressed up to there, from the end of the thread's last read if that was
    before.
    """
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            stream.seek(offset)
            return stream.read(size)
    try:
        return _compressed.read(path, offset, size)
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from error


def _open(path: Path) -> BinaryIO:
    with closing(path.open("rb")) as stream:
        compressed = stream.read(len(_MAGIC)) == _MAGIC
    return gzip.GzipFile(path) if compressed else path.open("rb")  # type: ignore[return-value]


def _of_the_system(error: Exception) -> bool:
    """Whether a file could not be read, not what it holds: an offset beyond any file is EINVAL."""
    about_content = isinstance(error, gzip.BadGzipFile) or (
        isinstance(error, OSError) and error.errno == errno.EINVAL
    )
    return isinstance(error, OSError) and not about_content
