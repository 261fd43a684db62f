"""Progress of what takes time: a bar on a terminal, and whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Listener = Callable[[str, int, int], None]
"""Told a piece of work's name, how much of it is done, and how much there is."""

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def track(items: Iterable[Item], name: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, with progress shown as each is done; `total` where they have no length."""
    count = len(items) if isinstance(items, Sized) else total or 0
    with counting(name, count, unit) as done:
        for number, item in enumerate(items):
            yield item
            done(number + 1)


@contextmanager
def counting(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """The value is called with how many of `total` are done."""
    told = listener.get()
    # `disable=None`: no bar where there is no terminal.
    with tqdm(
        desc=name, total=total, unit=unit, disable=None, leave=False, dynamic_ncols=True
    ) as bar:

        def done(count: int) -> None:
            bar.update(count - bar.n)
            if told:
                told(name, count, total)

        yield done
