"""Errors that a user can fix: each is shown as one line, with exit code 2."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


def printable(text: str) -> str:
    """Return a text on one line, without control characters: names in it come from data too."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def meant(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean ...?` with the known name that is closest, or an empty text."""
    forms = {each.casefold(): each for each in known}
    close = get_close_matches(name[:100].casefold(), forms, 1)
    return f" Did you mean `{forms[close[0]]}`?" if close else ""


class XmoreError(Exception):
    """Base of all errors that are shown to a user as one line, without a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(XmoreError):
    """A config or card is wrong: the message names the file, key, value and what to do."""


class DatasetError(XmoreError):
    """A test dataset's folder does not match its card."""


class ModelError(XmoreError):
    """A model cannot be found or loaded, or lacks a tower that its role needs."""


class MethodError(XmoreError):
    """A method from outside raised an error, or returned what no method may."""


class SnapshotError(XmoreError):
    """A memory's snapshot is absent, damaged, or built with another model than the config's."""


class SnapshotGone(SnapshotError):
    """A memory's snapshot was deleted, as `gc` does: what was computed from it is still there."""


class LockedError(XmoreError):
    """Another process is working on files that this one would change."""


class ArtifactError(XmoreError):
    """An artifact is damaged: the message names the file and how to rebuild it."""


class QueryError(XmoreError):
    """An SQL query, or another request for a run's results, cannot be executed."""


class ServiceError(XmoreError):
    """Prefect's server or worker cannot be started or reached."""


class RunError(XmoreError):
    """A run is unknown or cannot be resumed."""


class StudyError(XmoreError):
    """A file is no packed study, is damaged, or cannot be opened where it was asked for."""


LONGEST = 300  # characters of another library's complaint
RESUME = "Complete parts are kept. Fix it, then run the same command again to resume."
# What libraries say when a resource is lacking, and what to do; the first that fits is shown.
HINTS = (
    (r"CUDA out of memory|CUDA error: out of memory|ALLOC_FAILED", "Lower `execution.batch_size`."),
    (r"DataLoader worker .* (killed|exited)", "Lower `execution.workers`, or free memory."),
    (r"Too many open files|Errno 24\b", "Raise the limit of open files (`ulimit -n 4096`)."),
    (r"No space left on device|Disk quota exceeded|Errno 28\b", "Free disk space."),
    (r"File too large|Errno 27\b", "Raise the limit of a file's size (`ulimit -f unlimited`)."),
    (r"Input/output error|Errno 5\b", "Check the disk."),
    (
        r"start new thread|Resource temporarily unavailable|Errno 11\b",
        "Raise the limit of processes (`ulimit -u`).",
    ),
    (
        r"(could not|can't|cannot|unable to) (re|m)?alloc|out of memory|MemoryError|bad_alloc"
        r"|unable to mmap|failed to map|Errno 12\b",
        "Free memory, or raise its limit (`ulimit -v unlimited`).",
    ),
    (r"Permission denied|Read-only file system|Errno 13\b", "Make it writable."),
    (r"Is a directory|Not a directory", "Move away what is in its place."),
    (r"shared object file|No module named|cannot import", "Run `xmore doctor`."),
)
SHORTAGES = r"Too many open files|Cannot allocate memory"


def one_line(error: Exception) -> str:
    """Return what went wrong and what to do, whatever library raised the error."""
    if isinstance(error, XmoreError):
        return str(error)
    if isinstance(error, OSError):
        place, unknown = f"{error.filename}: " if error.filename else "", ""
        what = f"{place}{error.strerror or error}"
    else:
        what, unknown = cause_of(error), "`xmore --debug ...` shows where."
    todo = _readable(error) or what_to_do(f"{what} {error}") or unknown
    return printable(f"{what.rstrip('.')}. {todo} {RESUME}")


def _readable(error: Exception) -> str:
    """Return what helps if a file is there, but is another user's and not to be read."""
    if not isinstance(error, PermissionError) or not os.path.isfile(error.filename or ""):
        return ""
    return "" if os.access(error.filename, os.R_OK, effective_ids=True) else "Make it readable."


def what_to_do(told: str) -> str:
    """Return what helps against what a library has told, or an empty text."""
    hints = (hint for pattern, hint in HINTS if re.search(pattern, told, re.IGNORECASE))
    return next(hints, "")


def is_shortage(error: BaseException) -> bool:
    """Return whether the machine lacks something now: it says nothing about the file being read.

    Who takes an error for damage asks this first, and raises such an error again.
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    # What faiss and DuckDB raise has no number; an XmoreError may quote another error.
    what = "" if isinstance(error, XmoreError) else str(error)
    return isinstance(error, MemoryError) or re.search(SHORTAGES, what) is not None


@contextmanager
def passed_over(*kinds: type[Exception]) -> Iterator[None]:
    """Pass over such errors, as contextlib.suppress does, but not over a shortage."""
    try:
        yield
    except kinds as error:
        if is_shortage(error):
            raise


def cause_of(error: Exception) -> str:
    """Return another library's error as one short text: its type, and its first complaint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    count = 2 if lines and lines[0].endswith(":") else 1  # torch lists a checkpoint's faults below
    what = " ".join(lines[:count])
    if len(what) > LONGEST:  # what it comes to stands at its end
        what = f"{what[: LONGEST - 101]} … {what[-98:]}"
    return f"{type(error).__name__}: {what}" if what else type(error).__name__


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another package says."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".!")
