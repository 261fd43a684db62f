"""Errors that a user can fix: each is shown as one line, with exit code 2."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """Return a text on one line, without control characters: names in it come from data too."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


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


class SnapshotError(XmoreError):
    """A memory's snapshot is absent, damaged, or built with another model than the config's."""


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


RESUME = "Complete parts are kept. Fix it, then run the same command again to resume."
# What libraries say when a resource is lacking, and what to do; the first that fits is shown.
HINTS = (
    (r"CUDA out of memory|CUDA error: out of memory", "Lower `execution.batch_size`."),
    (r"DataLoader worker .* (killed|exited)", "Lower `execution.workers`, or free memory."),
    (r"could not allocate|out of memory|MemoryError|unable to mmap", "Free memory."),
    (r"Too many open files|Errno 24", "Raise the limit of open files (`ulimit -n 4096`)."),
    (r"No space left on device|Errno 28", "Free disk space."),
)


def one_line(error: Exception) -> str:
    """Return what went wrong and what to do, whatever library raised the error."""
    if isinstance(error, XmoreError):
        return str(error)
    if isinstance(error, OSError):
        place, unknown = f"{error.filename}: " if error.filename else "", ""
        what = f"{place}{error.strerror or error}"
    else:
        what, unknown = cause_of(error), "`xmore --debug ...` shows where."
    told = f"{what} {error}"
    hints = (hint for pattern, hint in HINTS if re.search(pattern, told, re.IGNORECASE))
    return printable(f"{what.rstrip('.')}. {next(hints, unknown)} {RESUME}")


def cause_of(error: Exception) -> str:
    """Return another library's error as one short text: its type, and its first complaint."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    count = 2 if lines and lines[0].endswith(":") else 1  # torch lists a checkpoint's faults below
    what = " ".join(lines[:count])[:300]
    return f"{type(error).__name__}: {what}" if what else type(error).__name__


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another package says."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".!")
