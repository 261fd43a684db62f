"""A sweep: runs of one config with varied keys, and a table over these runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import change_config
from xmore.files.anchored import AnchoredPath
from xmore.files.yaml import NAME, Section


class SweepConfig(Section):
    """One run per combination of values; runs share the artifacts that they have in common."""

    name: str = Field(pattern=NAME, description="Name of the runs and the table.")
    base: AnchoredPath = Field(description="The benchmark's config to change.")
    set: dict[str, Any] = Field(
        default_factory=dict, description="Changes for all runs: dotted key -> value."
    )
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict, description="Varied keys: dotted key -> list of values."
    )
    table: str = Field(
        description="SQL query over each run's views, which returns the table's rows."
    )


@dataclass(frozen=True)
class Member:
    """One run of a sweep: its values, formatted for display, and its config."""

    values: dict[str, str]
    config: BenchmarkConfig


def members(sweep: SweepConfig, folder: Path) -> Iterator[Member]:
    """Yield all runs of `sweep`, the last key varying fastest; its paths are relative to `folder`.

    Raises ConfigError.
    """
    ends = Counter(key.rpartition(".")[2] for key in sweep.vary)
    names = [end if ends[end := key.rpartition(".")[2]] == 1 else key for key in sweep.vary]
    for values in product(*sweep.vary.values()):
        chosen = dict(zip(sweep.vary, values, strict=True))
        changes = {"name": sweep.name, **sweep.set, **chosen}
        shown = dict(zip(names, map(_shown, values), strict=True))
        yield Member(shown, change_config(sweep.base, changes, folder))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    text = str(value)
    return Path(text).stem if text.endswith((".txt", ".json", ".yaml")) else text
