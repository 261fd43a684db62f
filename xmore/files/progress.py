"""Progress of long work: a bar on a terminal, lines without one, and an optional listener."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines where there is no terminal

Item = TypeVar("Item")
Listener = Callable[[str, int, int], None]
"""Called with the progress in words, the number of units done, and their total."""

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def track(
    items: Iterable[Item],
    name: str,
    unit: str,
    total: int | None = None,
    sizes: Sequence[int] | None = None,
) -> Iterator[Item]:
    """Yield the items and show progress after each; give `total` if they have no length.

    With `sizes`, an item counts as so many units, and `advance` counts them one by one.
    """
    if sizes is None:
        count = len(items) if isinstance(items, Sized) else total or 0
    else:
        count = sum(sizes)
    with _counting(name, count, unit) as work:
        stop = 0
        for number, item in enumerate(items):
            stop += 1 if sizes is None else sizes[number]
            work.stop = 0 if sizes is None else stop
            yield item
            work.reach(stop)


@contextmanager
def counting(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show progress; yields a function to call with the number of units done out of `total`."""
    with _counting(name, total, unit) as work:
        yield work.reach


@contextmanager
def _counting(name: str, total: int, unit: str) -> Iterator[_Work]:
    # `disable=None`: no bar without a terminal.
    with (
        tqdm(
            desc=name, total=total, unit=unit, disable=None, leave=False, dynamic_ncols=True
        ) as bar,
        _opened(_Work(name, total, unit, bar)) as work,
    ):
        yield work


@contextmanager
def working(name: str) -> Iterator[None]:
    """Say, where there is no terminal, that work goes on of which nothing is counted."""
    with _opened(_Work(name)):
        yield


def advance(count: int) -> None:
    """Count more units of the item that the innermost `track` with `sizes` is at."""
    if _open:
        _open[-1].reach(min(_open[-1].done + count, _open[-1].stop))


@dataclass
class _Work:
    name: str
    total: int = 0
    unit: str = ""
    bar: tqdm | None = None
    done: int = 0
    stop: int = 0  # `advance` counts up to here
    begun: float = field(default_factory=time.monotonic)

    def reach(self, count: int) -> None:
        """Show that `count` units are done."""
        if count <= self.done:
            return
        self.done = count
        if self.bar is not None:
            self.bar.update(count - self.bar.n)
        if listen := listener.get():
            listen(self.line(), count, self.total)

    def line(self) -> str:
        """Return the progress in words: units, rate, time left."""
        seconds = time.monotonic() - self.begun
        if not self.total:
            return f"{self.name}: {duration(seconds)} so far"
        line = f"{self.name}: {self.done:,} of {self.total:,} {self.unit}s"
        if not self.done or not seconds:
            return line
        rate = self.done / seconds
        return f"{line}, {rate:,.3g} per second, {duration((self.total - self.done) / rate)} left"


def duration(seconds: float) -> str:
    """Return a time in the unit that a reader would choose."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_open: list[_Work] = []  # the innermost last


@contextmanager
def _opened(work: _Work) -> Iterator[_Work]:
    """Say every EVERY seconds how far the innermost work is, unless a terminal shows bars."""
    ended = threading.Event()
    if not _open and not sys.stderr.isatty():
        threading.Thread(target=_say, args=[ended], daemon=True).start()
    _open.append(work)
    try:
        yield work
    finally:
        _open.remove(work)
        ended.set()


def _say(ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        for work in _open[-1:]:
            print(work.line(), file=sys.stderr, flush=True)
