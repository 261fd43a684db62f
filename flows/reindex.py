"""`xmore-reindex`: build a memory from its sources, or bring it up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import flow

from flows.prefect_ui import show_snapshot
from index_build.base import history, takedown
from index_build.base.batches import Batch, clear_unfinished, close, list_batches
from index_build.base.changes import changing
from index_build.base.features import set_damaged_aside, to_embed
from index_build.ledger import followers
from index_build.plan import ReindexPlan, already_published, make_plan
from index_build.snapshot import changes, clean_up, newest, point_current
from tasks import reindex as tasks
from tasks.progress import log_lines
from tasks.spread import check_runner, spread
from xmore.config.load import absolute
from xmore.config.memory import ReindexConfig
from xmore.files.paths import sweep
from xmore.files.text import counted
from xmore.memory.snapshot import Snapshot, open_snapshot
from xmore.report.snapshot import index_name, most_common, outcome


@dataclass(frozen=True)
class Reindexed:
    """The result of a re-index."""

    snapshot: Snapshot
    fetched: int = 0  # rows that this run requested from servers
    embedded: int = 0  # rows that this run embedded
    added: int = 0  # rows that the previous snapshot lacks
    removed: int = 0  # rows of the previous snapshot that this one lacks
    captions: int = 0  # rows in both, whose caption changed
    skipped: bool = False  # the snapshot already existed
    withdrawn: bool = False  # it was rolled back from, so CURRENT does not move to it


@dataclass
class _Costs:
    """What the steps of one run cost."""

    fetched: int = 0
    images: int = 0
    image_bytes: int = 0
    embedded: int = 0
    index: str = ""  # kept, added to or built
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        spent = self.seconds.get(name, 0) + time.monotonic() - begun
        self.seconds[name] = round(spent, 3)


@flow(name="xmore-reindex", flow_run_name="{params.name}", persist_result=False)
def xmore_reindex(params: ReindexConfig) -> Reindexed:
    """List rows, download and embed new ones, assemble, index, verify, publish.

    Completed work is skipped; a killed run resumes at its shard. Running benchmarks keep the
    snapshot that they started with.

    Args:
        params: Where the pairs come from, which model embeds them, how they are indexed.
    """
    params = absolute(params)
    check_runner(params.execution)
    busy = "another re-index of this memory is running. Wait for it to end."
    with changing(params.memory, busy):
        clear_unfinished(params.memory)
        listed = takedown.read_take_down(params.take_down)
        takedown.add(params.memory, listed, f"listed in {params.take_down}")
        plan = make_plan(params)
        done = already_published(plan)
        result = _unchanged(plan, done) if done else _build(plan)
    show_snapshot(result.snapshot, params.memory)
    log_lines(line.strip() for line in summary(result))
    return result


def summary(done: Reindexed) -> list[str]:
    """Return lines of what a re-index did, and of the rows that its snapshot lacks."""
    facts = done.snapshot.manifest
    index, name = index_name(facts["index"]), done.snapshot.name
    requested = f"{done.fetched:,} rows requested, " if done.fetched else ""
    work = f"{requested}{done.embedded:,} embedded"
    if done.skipped:
        work = "unchanged: nothing downloaded, nothing embedded"
    elif not (done.embedded or done.added or done.removed or done.captions):
        work = f"unchanged: {requested}nothing new"
    lines = [f"{facts['rows']:,} rows, index {index}, snapshot {name} ({work})"]
    if done.added or done.removed:
        lines.append(f"{done.added:>20,} rows added and {done.removed:,} removed")
    if done.captions:
        lines.append(f"{counted(done.captions, 'caption'):>25} changed, of the same images")
    if done.withdrawn:
        memory = done.snapshot.path.parents[1]
        lines.append(
            "CURRENT was not moved: this snapshot was rolled back from. Change its sources, or "
            f"run `xmore memory rollback {memory} --to {name}`"
        )
    for cause, count in most_common(facts["failures"]):
        lines.append(f"{count:>20,} of {facts['asked']:,} rows {outcome(cause)}")
    return lines


def facts(done: Reindexed) -> dict[str, list[dict[str, Any]]]:
    """Return the same for programs: the tables `snapshot` and `absent`."""
    of = {"name": done.snapshot.name, "rows": done.snapshot.rows}
    counts = {key: value for key, value in vars(done).items() if key != "snapshot"}
    causes = most_common(done.snapshot.manifest["failures"])
    absent = [{"cause": cause, "rows": count} for cause, count in causes]
    return {"snapshot": [of | counts], "absent": absent}


def _unchanged(plan: ReindexPlan, name: str) -> Reindexed:
    memory = plan.config.memory
    snapshot = open_snapshot(memory, name)
    withdrawn = name in history.withdrawn(memory)
    if not withdrawn:
        point_current(memory, name)
    told = name in history.published(memory)
    if not withdrawn and not told:  # the run that built it was killed before it said so
        previous = newest(memory)
        first = previous is None or previous.name == name
        changed = changes(snapshot, None if first else previous)
        _record(plan, Reindexed(snapshot, **changed._asdict()), _Costs())
    _finish(plan)
    return Reindexed(snapshot, skipped=True, withdrawn=withdrawn)


def _build(plan: ReindexPlan) -> Reindexed:
    memory, costs = plan.config.memory, _Costs()
    with costs.step("select"):
        for value, images in followers(memory, plan.taken).items():
            takedown.add(memory, images, "the image of a row that was taken down", value)
        wanted = tasks.list_rows(plan)
        batches = tasks.select_new(plan, wanted)
    with costs.step("download"):
        for batch in batches:
            if batch.kind == "urls":
                fetched = tasks.download(plan, batch)
                costs.fetched += fetched.rows
                costs.images += fetched.images
                costs.image_bytes += fetched.image_bytes
    tasks.check(plan, wanted)
    with costs.step("embed"):
        for batch in list_batches(memory):
            costs.embedded += _embed(plan, batch)
    with costs.step("assemble"):
        previous = newest(memory)
        assembled, totals = tasks.assemble(plan, wanted, previous)
    with costs.step("index"):
        indices = tasks.index(plan, assembled, previous)
    with costs.step("publish"):
        snapshot = tasks.publish(plan, assembled, totals, indices)
        withdrawn = snapshot.name in history.withdrawn(memory)
        if not withdrawn:
            point_current(memory, snapshot.name)  # before it is described, which takes long
        changed = changes(snapshot, previous)
    costs.index = indices["index"]["how"]
    result = Reindexed(snapshot, costs.fetched, costs.embedded, **changed._asdict())
    if withdrawn:
        result = replace(result, withdrawn=True)
    else:
        told = snapshot.name in history.published(memory)
        same = told and previous is not None and previous.name == snapshot.name
        _record(plan, result, costs, "checked" if same else "published")
    _finish(plan)
    return result


def _embed(plan: ReindexPlan, batch: Batch) -> int:
    """Embed a batch on this machine in one call, or on a cluster in one call per shard.

    What was embedded before and is damaged is embedded again.

    Returns the number of rows embedded.
    """
    execution, folder = plan.config.execution, batch.features(plan.model)
    set_damaged_aside(batch, folder)
    numbers = to_embed(batch, folder)
    sweep(folder)  # before workers write there: no worker may remove another's temporary files
    groups = [numbers] if execution.runner == "local" else [[number] for number in numbers]
    calls = [(plan.model, execution, batch, group) for group in groups if group]
    return sum(spread(tasks.embed, calls, execution))


def _record(plan: ReindexPlan, result: Reindexed, costs: _Costs, event: str = "published") -> None:
    facts = {"rows": result.snapshot.rows, "added": result.added, "removed": result.removed}
    history.append(plan.config.memory, event, result.snapshot.name, **facts, **vars(costs))


def _finish(plan: ReindexPlan) -> None:
    """Close open batches and delete what the next run does not need."""
    for batch in list_batches(plan.config.memory):
        close(batch)
    clean_up(plan)
