"""What all stages share: the decorators `@stage` and `@step`, and the workspace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.progress import in_flow_run, log_lines, shown_progress
from xmore.config.execution import ExecutionConfig
from xmore.files.progress import working
from xmore.models.batch_size import settled
from xmore.models.device import pick_device
from xmore.models.spec import ModelCard
from xmore.store.artifacts import ArtifactRef, ArtifactStore
from xmore.store.cost import measuring

if TYPE_CHECKING:
    from prefect import Task


@dataclass(frozen=True)
class Workspace:
    """The results folder that stages write to, and the config of their execution."""

    results: Path
    execution: ExecutionConfig
    record: Callable[[ArtifactRef], None] | None = None  # told of each artifact once it is there
    prompt_set: str = ""  # for the names of artifacts and task runs; empty in a run with one set

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.results / "store", self.execution.device)

    @property
    def cache(self) -> Path:
        return self.results / "cache"

    @property
    def device(self) -> str:
        """The device of this process. Raises ModelError."""
        return pick_device(self.execution.device, among_others=self.execution.runner != "local")

    @property
    def under(self) -> str:
        """`, prompts NAME` under one of several prompt sets, else empty."""
        return f", prompts {self.prompt_set}" if self.prompt_set else ""

    def on(self, device: str) -> Workspace:
        """Return this workspace for one device, in whatever process; it records nothing."""
        alone = {"device": device, "devices": "one"}
        return replace(self, execution=self.execution.model_copy(update=alone), record=None)

    def batch_size(self, model: ModelCard) -> int:
        """Return the inputs of a model per forward pass."""
        return settled(self.execution.batch_size, [model], self.execution.device)


class Step:
    """A function that is a Prefect task in a flow run, and a plain call elsewhere.

    So the same flow body runs under Prefect or without any server, and what needs no flow does not
    load Prefect, which takes a second. Prefect's caching is off: the artifact store determines
    what is already complete.
    """

    def __init__(self, fn: Callable[..., Any], run_name: str) -> None:
        self.fn, self.run_name = fn, run_name
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.task(*args, **kwargs) if in_flow_run() else self.fn(*args, **kwargs)

    @functools.cached_property
    def task(self) -> Task:
        from prefect import Task
        from prefect.cache_policies import NO_CACHE

        return Task(
            self.fn,
            name=self.fn.__name__,
            task_run_name=self.run_name,
            cache_policy=NO_CACHE,
            persist_result=False,
        )


def stage(run_name: str) -> Callable[[Callable[..., Any]], Step]:
    """Turn a function that returns ArtifactRefs into a task whose runs are named by `run_name`.

    `run_name` is a format string over the parameters. The returned ref has the seconds and the
    peak resident memory of the call; if there are several refs, the first has them. The workspace,
    its first parameter, records the refs.
    """

    def decorate(function: Callable[..., Any]) -> Step:
        parameters = signature(function)

        @functools.wraps(function)
        def measured(work: Workspace, *args: Any, **kwargs: Any) -> Any:
            with measuring() as watch:
                result = function(work, *args, **kwargs)
            alone = isinstance(result, ArtifactRef)
            first, *others = (result,) if alone else result
            first = replace(first, seconds=watch.seconds, peak_rss_mb=watch.peak)
            made = tuple(
                replace(ref, prompt_set=ref.prompt_set or work.prompt_set)
                for ref in (first, *others)
            )
            if work.record:
                for ref in made:
                    work.record(ref)
            call = parameters.bind(work, *args, **kwargs)
            call.apply_defaults()
            name = run_name.format(**call.arguments)
            log_lines(_line(name if alone else f"{name}: {ref.stage}", ref) for ref in made)
            return made[0] if alone else made

        return step(run_name)(measured)

    return decorate


def step(run_name: str) -> Callable[[Callable[..., Any]], Step]:
    """Turn a function into a task that shows progress and whose runs are named by `run_name`."""

    def decorate(function: Callable[..., Any]) -> Step:
        @functools.wraps(function)
        def listened(*args: Any, **kwargs: Any) -> Any:
            with shown_progress(), working(function.__name__):
                return function(*args, **kwargs)

        return Step(listened, run_name)

    return decorate


def _line(name: str, ref: ArtifactRef) -> str:
    done = "complete already, skipped" if ref.skipped else f"{ref.seconds:.1f} s"
    return f"{name}: {ref.rows:,} rows, {done}"
