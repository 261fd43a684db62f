"""The path of the checkout, names of files, and durable, atomic writes of files."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PROJECT_ROOT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT_ROOT / "results"  # where runs go, and are looked for, unless another is named


def is_text(name: str) -> bool:
    """Return whether a file's name, which may be of any bytes, can be written as UTF-8."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def shown(name: str) -> str:
    """Return a file's name as text: bytes that are no UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def real(path: Path) -> Path:
    """Return the absolute path without links; of links that lead to each other, one stays."""
    return Path(os.path.realpath(path))


def where(results: Path) -> str:
    """Return the option that a command needs to find runs in `results`; empty for the default."""
    return "" if real(results) == real(RESULTS) else f" --results {shlex.quote(str(results))}"


def fsync_dir(folder: Path) -> None:
    """Make renames and new names inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` durable, even if another process wrote them."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: the old file or the new one exists, even after a crash."""
    with writing_whole(path) as stream:
        stream.write(data)


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose bytes are at `path` once the block has ended: see `write_whole`."""
    _make_room(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def check_writable(path: Path) -> None:
    """Raise OSError, which names it, if `path` cannot be written: before the work, not after it."""
    with naming(path):
        _make_room(path)
        tempfile.TemporaryFile(dir=path.parent).close()


def _make_room(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError while `path` is written name it: a full disk's names no file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def link_or_copy(path: Path, target: Path) -> None:
    """Create `target` as a hard link to `path`, or else as a durable copy of it."""
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links, or a file with too many
        with naming(target):
            shutil.copyfile(path, target)
            fsync_file(target)


@contextmanager
def without_patterns(path: Path) -> Iterator[Path]:
    """Yield a path that fsspec takes as it is: `path`, or a link to it on this machine.

    fsspec, through which img2dataset and autofaiss read, takes `[`, `*` and `?` as a pattern, even
    in the name of a folder that exists, and `::` as two addresses; it has no way to escape them.
    """
    if not set("[*?") & set(str(path)) and "::" not in str(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="xmore-") as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.absolute())
        yield link


def remove_folder(folder: Path) -> None:
    """Delete a folder and all that is in it, if it is there. Raises OSError where that fails."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sweep(folder: Path) -> None:
    """Remove temporary files that killed writers left under `folder`; needs the folder's lock."""
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()
