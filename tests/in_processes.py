"""What a test runs in other processes, which do not find its own module."""

import os
from collections.abc import Iterator

from xmore.files.errors import DatasetError


def numbers(upto: int, fail: int | None = None) -> Iterator[tuple[int, int]]:
    """Numbers below one, with the process that counted."""
    for i in range(upto):
        if i == fail:
            raise DatasetError("the third")
        yield i, os.getpid()


def dying(upto: int) -> Iterator[int]:
    yield from range(upto)
    os._exit(9)
