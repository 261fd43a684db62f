"""Parts of a stage and shards of a re-index, shared out among the devices of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from tasks.pixels import Span, Stream, spans_of
from tasks.stage import Workspace
from xmore.config.execution import ExecutionConfig
from xmore.files.processes import shared_out
from xmore.models.device import all_devices

MakePart = Callable[[int, int], pa.Table]
"""start, stop -> the rows of a part, as `ArtifactStore.write` asks for them."""


Item = TypeVar("Item")


class Parts(Protocol):
    """Makes what makes the parts of given spans. It is sent to processes: a module's function."""

    def __call__(self, work: Workspace, spans: Sequence[Span], /, *args: Any) -> MakePart: ...


def shares(execution: ExecutionConfig, items: Sequence[Item]) -> list[tuple[str, Sequence[Item]]]:
    """Return each device and its share of the items, every N-th; [] if one device makes all."""
    devices = all_devices() if execution.devices == "all" else []
    if len(devices) < 2:
        return []
    return [(device, items[i :: len(devices)]) for i, device in enumerate(devices)]


def make_here(parts: Parts, work: Workspace, sizes: Sequence[int], *args: Any) -> MakePart:
    """Return what makes parts of such sizes in this process."""
    return parts(work, spans_of(sizes), *args)


def make_parts(parts: Parts, work: Workspace, sizes: Sequence[int], *args: Any) -> MakePart:
    """Return what makes parts of such sizes: here, or in a process for each device.

    Of N devices, each makes every N-th of the parts that are missing, and is one part ahead.
    """
    if not shares(work.execution, sizes):
        return make_here(parts, work, sizes, *args)

    def begin(spans: Sequence[Span]) -> Iterator[pa.Table]:
        shared = shares(work.execution, spans)
        return shared_out(_each_part, [(parts, work.on(on), mine, *args) for on, mine in shared])

    return Stream(spans_of(sizes), begin)


def _each_part(
    parts: Parts, work: Workspace, spans: Sequence[Span], *args: Any
) -> Iterator[pa.Table]:
    make = parts(work, spans, *args) if spans else None
    for start, stop in spans:
        assert make is not None
        yield make(start, stop)
