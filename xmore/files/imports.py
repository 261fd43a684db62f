"""Imports of large libraries."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module
from typing import Any

# open_clip's libraries import these if they can, for what is never used here: a fifth of the time.
UNUSED = ("sklearn", "wandb")

atexit.register(gc.unfreeze)  # else libraries complain that their objects are still there


def load_first(name: str) -> None:
    """Import a module, once, without the garbage collector, and without UNUSED libraries.

    The collector would look through a million new objects again and again, a quarter of the time,
    and find nothing. What modules make stays: nor is it looked through afterwards.
    """
    if name in sys.modules:
        return
    hidden = [unused for unused in UNUSED if unused not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))  # None: as if it were not installed
    was_on = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
    finally:
        for unused in hidden:
            del modules[unused]
        gc.freeze()
        if was_on:
            gc.enable()
