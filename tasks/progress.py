"""A task's progress in Prefect's UI, and lines in its log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from xmore.files.progress import listener

EVERY = 2.0  # minimum seconds between two reports of progress


def in_flow_run() -> bool:
    """Return whether this is in a run of a Prefect flow, without loading Prefect to know it."""
    if "prefect.context" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


@contextlib.contextmanager
def shown_progress() -> Iterator[None]:
    """Show what `xmore.files.progress` is told in the block; does nothing outside a flow run."""
    logging.getLogger("prefect.task_runs").addFilter(_says_something)  # once: it is the same
    # A task is pickled for a cluster's workers, and a ContextVar cannot be: set it in the call.
    token = listener.set(ProgressArtifact() if in_flow_run() else None)
    try:
        yield
    finally:
        listener.reset(token)


def _says_something(record: logging.LogRecord) -> bool:
    """Return False for the line by which Prefect ends each task, between those of the stages."""
    return record.getMessage() != "Finished in state Completed()"


def log_lines(lines: Iterable[str]) -> None:
    """Add lines to the log of the flow run; does nothing outside one."""
    if in_flow_run():
        from prefect.logging import get_run_logger

        logger = get_run_logger()
        for line in lines:
            logger.info("%s", line)


class ProgressArtifact:
    """A Prefect artifact that shows a task's progress, from two seconds after its start."""

    def __init__(self) -> None:
        self.next = time.monotonic() + EVERY
        self.artifact: Any = None

    def __call__(self, text: str, done: int, total: int) -> None:
        """Report to the server, at most every EVERY seconds, and at the end."""
        if time.monotonic() < self.next and not (self.artifact and done == total):
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self.next = time.monotonic() + EVERY
        share = 100 * done / max(total, 1)
        if self.artifact is None:
            self.artifact = create_progress_artifact(share, description=text)
        else:
            update_progress_artifact(self.artifact, share, description=text)
