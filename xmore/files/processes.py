"""Generators run in processes of their own, whose items are taken in turn."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from xmore.files.errors import ModelError


def shared_out(
    function: Callable[..., Iterator[Any]], calls: Sequence[tuple[Any, ...]]
) -> Iterator[Any]:
    """Yield what `function(*call)` yields, in a process for each call: one of each, in turn.

    A process is at most one item ahead. Its error is raised here; if it is killed, ModelError is.
    """
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    processes, ends = [], []
    try:
        for call in calls:
            here, there = context.Pipe(duplex=False)
            # Not daemonic, as it starts processes that decode images.
            process = context.Process(target=_run, args=(there, function, call))
            process.start()
            there.close()
            processes.append(process)
            ends.append(here)
        going = list(zip(processes, ends, strict=True))
        while going:
            for process, end in going.copy():
                try:
                    kind, item = end.recv()
                except EOFError:
                    process.join()
                    raise ModelError(
                        f"the process of a device ended with code {process.exitcode}. Run the same "
                        "command again to resume, or set `execution.devices: one`."
                    ) from None
                if kind == "ended":
                    going.remove((process, end))
                elif kind == "error":
                    raise item
                else:
                    yield item
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _run(there: Connection, function: Callable[..., Iterator[Any]], call: tuple[Any, ...]) -> None:
    with suppress(BrokenPipeError):  # the process that asked is gone
        try:
            for item in function(*call):
                there.send(("item", item))
        except Exception as error:
            there.send(("error", _sendable(error)))
        else:
            there.send(("ended", None))


def _sendable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))  # what cannot be read there says so here
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
