"""A snapshot's indices: kept if its rows are the same, added to if rows were added, or rebuilt."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from index_build.index.build import add_rows, build_index, can_add, tune_index, unpublished
from index_build.plan import ReindexPlan
from index_build.snapshot import Assembled, identity
from xmore.files.digests import has_digest
from xmore.files.errors import SnapshotError
from xmore.files.paths import link_or_copy
from xmore.memory.rows import embedding_blocks
from xmore.memory.snapshot import Kind, Snapshot, index_facts, seen_by

log = logging.getLogger(__name__)

GROWTH = 1.5  # maximum ratio of rows to those the index was built from; beyond it, it is rebuilt
LOSS = 0.01  # maximum loss of recall@128 that adding rows to an index may cause


def make_indices(plan: ReindexPlan, made: Assembled, previous: Snapshot | None) -> dict[str, Any]:
    """Put image.index, and text.index if `index.text` is set, into `plan.work` -> facts of each.

    The keys are the manifest's; `how` is "kept", "added to" or "built". Raises SnapshotError.
    Memory: as `build_index` and `add_rows`.
    """
    kinds: list[Kind] = ["image", "text"] if plan.config.index.text else ["image"]
    return {index_facts(kind): make_index(plan, made, previous, kind) for kind in kinds}


def make_index(
    plan: ReindexPlan, made: Assembled, previous: Snapshot | None, kind: Kind = "image"
) -> dict[str, Any]:
    """Put one index into `plan.work` -> its facts. Raises SnapshotError."""
    old = seen_by(previous, kind) if previous else None
    if old and _of_the_same_kind(plan, old) and _is_whole(old):
        before = [identity(shard) for shard in old.manifest["shards"]]
        if before == made.identities():
            return _keep(plan, old)
        if before == made.identities()[: len(before)]:
            facts = _grow(plan, made, old)
            if facts:
                return facts
    facts = build_index(plan.work, plan.config.index, plan.config.spark_master, kind)
    return {**facts, **_settings(plan), "how": "built", "built_of": made.rows}


def _settings(plan: ReindexPlan) -> dict[str, Any]:
    return {"asked": plan.config.index.each}


def _of_the_same_kind(plan: ReindexPlan, previous: Snapshot) -> bool:
    same_model = previous.manifest["model"]["identity"] == plan.model.identity
    return same_model and (previous.index or {}).get("asked") == _settings(plan)["asked"]


def _is_whole(previous: Snapshot) -> bool:
    whole = has_digest(previous.index_path, (previous.index or {}).get("sha256", ""))
    if not whole:
        log.warning("%s: damaged; building another", previous.index_path)
    return whole


def _keep(plan: ReindexPlan, previous: Snapshot) -> dict[str, Any]:
    target = plan.work / previous.index_path.name
    target.unlink(missing_ok=True)
    link_or_copy(previous.index_path, target)
    return {**(previous.index or {}), "how": "kept"}


def _grow(plan: ReindexPlan, made: Assembled, previous: Snapshot) -> dict[str, Any] | None:
    """Add the new rows to the previous index; None if that is impossible or would lose recall."""
    old = previous.index or {}
    try:
        if made.rows > GROWTH * old["built_of"] or not can_add(previous.index_path):
            return None
        rows = unpublished(plan.work, previous.kind)
        new = tuple(shard for shard in rows.shards if shard.start >= previous.rows)
        blocks = embedding_blocks(replace(rows, shards=new))
        add_rows(previous.index_path, previous.rows, blocks, rows.index_path)
        facts = tune_index(rows, old["key"], plan.config.index)
    except SnapshotError as error:
        log.warning("rebuilding the index: %s", error)
        return None
    lost = {kind: _recall(old, kind) - _recall(facts, kind) for kind in facts["measured"]["of"]}
    if max(lost.values()) > LOSS:
        log.warning("rebuilding the index: adding rows to it would lose recall (%s)", lost)
        return None
    return {**facts, **_settings(plan), "how": "added to", "built_of": old["built_of"]}


def _recall(facts: dict[str, Any], kind: str) -> float:
    """Return recall@128 of one kind of query; in JSON the keys are text."""
    measured = facts["measured"]["of"].get(kind, {"recall": {"128": 0.0}})
    return {str(k): share for k, share in measured["recall"].items()}["128"]
