"""Odd inputs: what a case writes, and what must come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parents[2] / "data" / "demo"


@dataclass(frozen=True)
class Pairs:
    """A source of a memory, for a whole re-index."""

    name: str
    make: Callable[[Path], dict[str, Any]]  # fills an empty folder -> the source, as in YAML
    captions: list[str] = field(default_factory=list)  # of all rows of the snapshot, in any order
    failures: Mapping[str, int] = field(default_factory=dict)  # by cause
    refused: str = ""  # else: a regular expression for the one line, which names the place


@dataclass(frozen=True)
class Queries:
    """A test dataset, for `datasets check` and a whole benchmark."""

    name: str
    make: Callable[[Path], dict[str, Any]]  # fills an empty folder, the card's -> card, as in YAML
    classes: list[str] = field(default_factory=list)  # class name of each usable image, sorted
    rejected: Mapping[str, str] = field(default_factory=dict)  # uri -> cause
    refused: str = ""  # else: a regular expression for the one line, which names the place


@cache
def pictures() -> list[bytes]:
    """Real drawings, no two alike."""
    from conftest import distinct_images

    names = distinct_images()["path"].to_pylist()[:240:12]
    return [(DEMO / "memory" / "images" / name).read_bytes() for name in names]


@cache
def photos() -> list[bytes]:
    """Real photos, no two alike."""
    return [path.read_bytes() for path in sorted((DEMO / "queries").rglob("*.jpg"))[::7][:20]]
