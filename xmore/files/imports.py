"""Imports of large libraries."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module

atexit.register(gc.unfreeze)  # else libraries complain that their objects are still there


def load_first(name: str) -> None:
    """Import a module, once, without the garbage collector.

    It would look through a million new objects again and again, a quarter of the time, and find
    nothing. What modules make stays: nor is it looked through afterwards.
    """
    if name in sys.modules:
        return
    was_on = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
