"""What made an artifact: versions and device, on which the last bits of its numbers depend; source.

It is recorded outside of the digest: an artifact of another version is reused, and that is said.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping
from functools import cache

from xmore.models.device import device_name

log = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "pillow")


def made_by(device: str) -> dict[str, str]:
    """Return the versions of PACKAGES, and the device that `execution.device` stands for."""
    return _versions() | {"device": device_name(device)}


def warn_if_other(theirs: object, device: str, what: object) -> None:
    """Log one warning if `what`, which is reused, was made by other versions or another device.

    Each difference is reported once, for the first thing that has it. One made before this was
    recorded has none.
    """
    if not isinstance(theirs, Mapping):
        return
    differ = [
        f"{name} {theirs[name]}, now {value}"
        for name, value in made_by(device).items()
        if theirs.get(name, value) != value
    ]
    if differ:
        told = "it is reused, but new results may differ in their last bits"
        _warn_once("; ".join(differ), what, told)


def warn_if_edited(theirs: object, ours: Mapping[str, str], what: object) -> None:
    """Log one warning if `what`, which is reused, was made before its method was edited.

    `ours` maps the files of the method's source to their sha256. Reported as by `warn_if_other`.
    """
    if not isinstance(theirs, Mapping):
        return
    files = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    if files:
        told = "it is reused; if that changes its numbers, increase the method's `version`"
        _warn_once(f"another version of {', '.join(files)}", what, told)


_warned: set[str] = set()


def _warn_once(difference: str, what: object, told: str) -> None:
    if difference not in _warned:
        _warned.add(difference)
        log.warning("%s was made by %s: %s", what, difference, told)


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}
