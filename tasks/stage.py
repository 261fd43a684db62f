"""What all stages share: the decorators `@stage` and `@step`, and the workspace."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from xmore.config.execution import ExecutionConfig
from xmore.files.progress import listener
from xmore.store.artifacts import ArtifactRef, ArtifactStore

EVERY = 2.0  # minimum seconds between two reports of progress


@dataclass(frozen=True)
class Workspace:
    """The results folder that stages write to, and the config of their execution."""

    results: Path
    execution: ExecutionConfig

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.results / "store")

    @property
    def cache(self) -> Path:
        return self.results / "cache"


class StageTask(Task):
    """A Prefect task that is a plain function call outside a flow run.

    So the same flow body runs under Prefect or without any server. Prefect's caching is off: the
    artifact store determines what is already complete.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if FlowRunContext.get() is None:
            return self.fn(*args, **kwargs)
        return super().__call__(*args, **kwargs)


def stage(run_name: str) -> Callable[[Callable[..., Any]], StageTask]:
    """Turn a function that returns ArtifactRefs into a task whose runs are named by `run_name`.

    `run_name` is a format string over the parameters. The returned ref has the seconds and the
    peak resident memory of the call; if there are several refs, the first has them.
    """

    def decorate(function: Callable[..., Any]) -> StageTask:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            _reset_peak()
            result = function(*args, **kwargs)
            seconds, peak = round(time.perf_counter() - begun, 3), _peak()
            if isinstance(result, ArtifactRef):
                return replace(result, seconds=seconds, peak_rss_mb=peak)
            return (replace(result[0], seconds=seconds, peak_rss_mb=peak), *result[1:])

        return step(run_name)(measured)

    return decorate


def step(run_name: str) -> Callable[[Callable[..., Any]], StageTask]:
    """Turn a function into a task that shows progress and whose runs are named by `run_name`."""

    def decorate(function: Callable[..., Any]) -> StageTask:
        @functools.wraps(function)
        def listened(*args: Any, **kwargs: Any) -> Any:
            with _listening():
                return function(*args, **kwargs)

        return StageTask(
            listened,
            name=function.__name__,
            task_run_name=run_name,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    return decorate


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    # A task is pickled for a cluster's workers, and a ContextVar cannot be: set it in the call.
    token = listener.set(ProgressArtifact() if FlowRunContext.get() else None)
    try:
        yield
    finally:
        listener.reset(token)


class ProgressArtifact:
    """A Prefect artifact that shows a task's progress, from two seconds after its start."""

    def __init__(self) -> None:
        self.next = time.monotonic() + EVERY
        self.artifact: Any = None

    def __call__(self, name: str, done: int, total: int) -> None:
        """Report to the server, at most every EVERY seconds, and at the end."""
        if time.monotonic() < self.next and not (self.artifact and done == total):
            return
        self.next = time.monotonic() + EVERY
        share, text = 100 * done / max(total, 1), f"{name}: {done} of {total}"
        if self.artifact is None:
            self.artifact = create_progress_artifact(share, description=text)
        else:
            update_progress_artifact(self.artifact, share, description=text)


def _reset_peak() -> None:
    # Not Linux, or not allowed: the peak is then the process's since its start.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)
