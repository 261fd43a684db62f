"""What all stages share: the decorators `@stage` and `@step`, and the workspace."""

from __future__ import annotations

import functools
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
from xmore.models.batch_size import settled
from xmore.models.spec import ModelCard
from xmore.store.artifacts import ArtifactRef, ArtifactStore
from xmore.store.cost import measuring


@dataclass(frozen=True)
class Workspace:
    """The results folder that stages write to, and the config of their execution."""

    results: Path
    execution: ExecutionConfig
    record: Callable[[ArtifactRef], None] | None = None  # told of each artifact once it is there

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.results / "store", self.execution.device)

    @property
    def cache(self) -> Path:
        return self.results / "cache"

    @property
    def device(self) -> str:
        """The device of this process. Raises ModelError."""
        from xmore.models.encoder import pick_device

        return pick_device(self.execution.device, among_others=self.execution.runner != "local")

    def on(self, device: str) -> Workspace:
        """Return this workspace for one device, in whatever process; it records nothing."""
        alone = {"device": device, "devices": "one"}
        return replace(self, execution=self.execution.model_copy(update=alone), record=None)

    def batch_size(self, model: ModelCard) -> int:
        """Return the inputs of a model per forward pass."""
        return settled(self.execution.batch_size, [model], self.execution.device)


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
    peak resident memory of the call; if there are several refs, the first has them. The workspace,
    its first parameter, records the refs.
    """

    def decorate(function: Callable[..., Any]) -> StageTask:
        @functools.wraps(function)
        def measured(work: Workspace, *args: Any, **kwargs: Any) -> Any:
            with measuring() as watch:
                result = function(work, *args, **kwargs)
            alone = isinstance(result, ArtifactRef)
            first, *others = (result,) if alone else result
            first = replace(first, seconds=watch.seconds, peak_rss_mb=watch.peak)
            if work.record:
                for ref in (first, *others):
                    work.record(ref)
            log_lines(map(_line, (first, *others)))
            return first if alone else (first, *others)

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
