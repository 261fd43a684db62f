"""What all stages share: the decorators `@stage` and `@step`, and the workspace."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from tasks.progress import log_lines, shown_progress
from xmore.config.execution import ExecutionConfig
from xmore.files.progress import working
from xmore.store.artifacts import ArtifactRef, ArtifactStore


@dataclass(frozen=True)
class Workspace:
    """The results folder that stages write to, and the config of their execution."""

    results: Path
    execution: ExecutionConfig

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.results / "store", self.execution.device)

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
            first, *others = [result] if isinstance(result, ArtifactRef) else result
            first = replace(first, seconds=seconds, peak_rss_mb=peak)
            log_lines(map(_line, (first, *others)))
            return first if isinstance(result, ArtifactRef) else (first, *others)

        return step(run_name)(measured)

    return decorate


def step(run_name: str) -> Callable[[Callable[..., Any]], StageTask]:
    """Turn a function into a task that shows progress and whose runs are named by `run_name`."""

    def decorate(function: Callable[..., Any]) -> StageTask:
        @functools.wraps(function)
        def listened(*args: Any, **kwargs: Any) -> Any:
            with shown_progress(), working(function.__name__):
                return function(*args, **kwargs)

        return StageTask(
            listened,
            name=function.__name__,
            task_run_name=run_name,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    return decorate


def _line(ref: ArtifactRef) -> str:
    of = f"{ref.dataset} {ref.stage}" + (f", {ref.model}" if ref.model else "")
    done = "complete already, skipped" if ref.skipped else f"{ref.seconds:.1f} s"
    return f"{of}: {ref.rows:,} rows, {done}"


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
