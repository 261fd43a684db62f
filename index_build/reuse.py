"""A snapshot's index: the old one where its rows are the same, added to where more came, or new."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from index_build.index import add_rows, build_index, can_add, tune_index, unpublished
from index_build.plan import Plan
from index_build.snapshot import Assembled, identity
from xmore.errors import SnapshotError
from xmore.memory import Snapshot, embedding_blocks
from xmore.paths import link_or_copy

log = logging.getLogger(__name__)

GROWTH = 1.5  # rows to those that the index was built of: from there on it is built anew
LOSS = 0.01  # of recall@128 that an index may lose by being added to


def make_index(plan: Plan, made: Assembled, previous: Snapshot | None) -> dict[str, Any]:
    """Put image.index into `plan.work` -> its facts; `how` says what was done.

    Raises SnapshotError. Memory: see `build_index` and `add_rows`.
    """
    if previous and _of_the_same_kind(plan, previous):
        before = [identity(shard) for shard in previous.manifest["shards"]]
        if before == made.identities():
            return _keep(plan, previous)
        if before == made.identities()[: len(before)]:
            facts = _grow(plan, made, previous)
            if facts:
                return facts
    facts = build_index(plan.work, plan.config.index, plan.config.spark_master)
    return {**facts, **_asked(plan), "how": "built", "built_of": made.rows}


def _asked(plan: Plan) -> dict[str, Any]:
    return {"asked": plan.config.index.wanted}


def _of_the_same_kind(plan: Plan, previous: Snapshot) -> bool:
    facts = previous.manifest
    same_model = facts["model"]["identity"] == plan.model.identity
    return same_model and facts["index"].get("asked") == _asked(plan)["asked"]


def _keep(plan: Plan, previous: Snapshot) -> dict[str, Any]:
    target = plan.work / "image.index"
    target.unlink(missing_ok=True)
    link_or_copy(previous.index_path, target)
    return {**previous.manifest["index"], "how": "kept"}


def _grow(plan: Plan, made: Assembled, previous: Snapshot) -> dict[str, Any] | None:
    """Add the rows that came; none where the index cannot be added to, or would lose recall."""
    old = previous.manifest["index"]
    try:
        if made.rows > GROWTH * old["built_of"] or not can_add(previous.index_path):
            return None
        rows = unpublished(plan.work)
        new = tuple(shard for shard in rows.shards if shard.start >= previous.rows)
        blocks = embedding_blocks(replace(rows, shards=new))
        add_rows(previous.index_path, previous.rows, blocks, plan.work / "image.index")
        facts = tune_index(rows, old["key"], plan.config.index)
    except SnapshotError as error:
        log.warning("building the index anew: %s", error)
        return None
    lost = {kind: _recall(old, kind) - _recall(facts, kind) for kind in facts["measured"]["of"]}
    if max(lost.values()) > LOSS:
        log.warning("building the index anew: added to, it loses recall (%s)", lost)
        return None
    return {**facts, **_asked(plan), "how": "added to", "built_of": old["built_of"]}


def _recall(facts: dict[str, Any], kind: str) -> float:
    """recall@128 of one kind of query; JSON has made text of the number."""
    measured = facts["measured"]["of"].get(kind, {"recall": {"128": 0.0}})
    return {str(k): share for k, share in measured["recall"].items()}["128"]
