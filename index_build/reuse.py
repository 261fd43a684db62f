"""A snapshot's index: the old one where its rows are the same, added to where more came, or new."""

from __future__ import annotations

import os
import shutil
from typing import Any

from index_build.index import add_rows, build_index, can_add, tune_index
from index_build.plan import Plan
from index_build.snapshot import Assembled
from xmore.errors import SnapshotError
from xmore.memory import Snapshot, embedding_blocks, snapshot_of
from xmore.paths import fsync_file

GROWTH = 1.5  # rows to those that the index was trained on: from there on it is built anew
LOSS = 0.01  # recall@128 that an added-to index may lose against the one it grew from


def make_index(plan: Plan, made: Assembled, previous: Snapshot | None) -> dict[str, Any]:
    """Put image.index into `plan.work` -> its facts; `how` says what was done.

    Raises SnapshotError. Memory: see `build_index` and `add_rows`.
    """
    if previous and _fits(plan, previous):
        if _identities(previous) == made.identities():
            _take(previous, plan)
            return {**previous.manifest["index"], "how": "kept"}
        grown = _grow(plan, made, previous)
        if grown:
            return grown
    return {**build_index(plan.work, plan.config.index), "how": "built", "trained_on": made.rows}
