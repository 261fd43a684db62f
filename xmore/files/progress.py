"""Progress of long work: a bar on a terminal, and an optional listener."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Listener = Callable[[str, int, int], None]
"""Called with the name of the work, the number of items done, and their total."""

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def track(items: Iterable[Item], name: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show progress after each; give `total` if they have no length."""
    count = len(items) if isinstance(items, Sized) else total or 0
    with counting(name, count, unit) as done:
        for number, item in enumerate(items):
            yield item
            done(number + 1)


@contextmanager
def counting(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show progress; yields a function to call with the number of items done out of `total`."""
    listen = listener.get()
    # `disable=None`: no bar without a terminal.
    with tqdm(
        desc=name, total=total, unit=unit, disable=None, leave=False, dynamic_ncols=True
    ) as bar:

        def done(count: int) -> None:
            bar.update(count - bar.n)
            if listen:
                listen(name, count, total)

        yield done
