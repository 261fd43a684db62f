"""Forward passes on a CPU: a core for each, instead of all cores for one.

Cores that share a pass wait for each other after each of its steps, and each time for one that a
decoding process or another program has taken meanwhile.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from xmore.models.transfer import Coming

INPUTS = 16  # of a pass, at least where a batch has as many: with fewer, RN50 has other last bits
EACH = 2  # passes for each core, so that none is idle while the next batch is prepared

Run = Callable[[torch.Tensor], Coming]


class Cores:
    """Threads that run passes, a core each. They start with the first pass, end with the block."""

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Cores:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def would_be_busy(self, inputs: int) -> bool:
        """Whether so many inputs are enough to keep all cores busy with passes of their own."""
        return self.count > 1 and inputs >= EACH * INPUTS * self.count

    def in_flight(self, batch: int) -> int:
        """Return how many batches of so many inputs are to be begun before one is waited for."""
        return math.ceil(EACH * INPUTS * self.count / batch)

    def begin(self, run: Run, batch: torch.Tensor) -> list[Coming]:
        """Begin to `run` a batch, in near-equal passes of INPUTS or somewhat more inputs."""
        if self._threads is None:
            self._threads = _threads(self.count)
        passes = batch.tensor_split(max(1, len(batch) // INPUTS))
        return [partial(_result, self._threads.submit(run, each)) for each in passes]


def _result(running: Future[Coming]) -> np.ndarray:
    return running.result()()


def _threads(count: int) -> ThreadPoolExecutor:
    """Return threads that each compute on one core."""
    started = threading.Barrier(count + 1)

    def one_core() -> None:
        torch.get_num_threads()  # else the thread's first pass would begin with the number of all
        torch.set_num_threads(1)
        started.wait()

    threads = ThreadPoolExecutor(count, "core", one_core)
    for _ in range(count):
        threads.submit(int)  # starts a thread, as none is idle
    started.wait()
    torch.set_num_threads(count)  # the number that this thread has is what later ones begin with
    return threads
