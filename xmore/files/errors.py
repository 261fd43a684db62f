"""What a user can do something about: each of these ends as one line and exit code 2."""

from __future__ import annotations


class XmoreError(Exception):
    """Base of all errors that are shown to a user as one line, without a traceback."""

    def __init__(self, message: str) -> None:
        plain = "".join(c if c.isprintable() else " " for c in message)  # names come from data too
        super().__init__(" ".join(plain.split()))


class ConfigError(XmoreError):
    """A config or card is wrong: the message names the file, the key, what it got, what to do."""


class DatasetError(XmoreError):
    """A test dataset's folder does not hold what its card says."""


class ModelError(XmoreError):
    """A model cannot be found or loaded, or lacks a tower that its role needs."""


class SnapshotError(XmoreError):
    """A memory's snapshot is absent, damaged, or made by another model than the config's."""


class LockedError(XmoreError):
    """Another process works on what this one would change."""


class ArtifactError(XmoreError):
    """An artifact is damaged; the message says which file and how to make it again."""


class QueryError(XmoreError):
    """A question to a run's results that cannot be answered."""


class ServiceError(XmoreError):
    """Prefect's server or worker cannot be started or reached."""


class RunError(XmoreError):
    """A run is not known, or cannot be resumed."""
