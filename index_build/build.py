"""Build a memory from image-text pairs: embed, index, publish. Unchanged: nothing is done."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index_build.source import Pairs, read_pairs
from xmore.config import MemoryConfig
from xmore.digest import digest_of
from xmore.errors import SnapshotError
from xmore.locks import locked
from xmore.memory import open_snapshot, resolve_current
from xmore.models import ModelCard, describe_model


@dataclass(frozen=True)
class Built:
    """What a build came to."""

    snapshot: str
    rows: int
    rejected: dict[str, int]
    index: str
    skipped: bool  # the snapshot was there already


def build_memory(config: MemoryConfig) -> Built:
    """Embed and index what `config` names and publish it; go on where a killed run stopped."""
    pairs = read_pairs(config.images, config.captions, config.cache)
    model = describe_model(config.model_name, config.model, config.cache)
    plan = digest_of([pairs.digest, model.identity, config.shard_rows, config.index_key])
    with locked(config.memory / ".locks" / "build.lock"):
        manifest = _current(config.memory)
        if manifest and manifest["plan"] == plan:
            return _built(resolve_current(config.memory), manifest, skipped=True)
        name = _build(config, pairs, model, plan)
        return _built(name, open_snapshot(config.memory, name).manifest, skipped=False)


def _build(config: MemoryConfig, pairs: Pairs, model: ModelCard, plan: str) -> str:
    from index_build.embed import Embedding, embed_shards
    from index_build.index import build_index
    from index_build.snapshot import publish
    from xmore.encoders import load_encoder, pick_device

    staging = config.memory / "staging" / plan[:16]
    encoder = load_encoder(model, pick_device(config.execution.device))
    how = Embedding(encoder, config.execution, config.shard_rows)
    records = embed_shards(pairs, how, staging)
    rows = sum(record["rows"] for record in records)
    rejected = sum((Counter(record["rejected"]) for record in records), Counter())
    _stop_if_too_many(config, rejected, len(pairs.paths))
    facts = {
        "plan": plan,
        "rows": rows,
        "dim": max(record["dim"] for record in records),
        "rejected": dict(rejected),
        "without_caption": sum(not caption.strip() for caption in pairs.captions),
        "index": build_index(staging, config.index_key),
    }
    shutil.rmtree(staging / "shards")
    name = publish(staging, config.memory, model, facts)
    shutil.rmtree(config.memory / "staging", ignore_errors=True)
    return name


def _stop_if_too_many(config: MemoryConfig, rejected: Counter[str], asked: int) -> None:
    bad = rejected.total()
    if bad == asked or bad > config.max_rejected * asked:
        causes = ", ".join(f"{n} {cause}" for cause, n in rejected.most_common())
        raise SnapshotError(
            f"{config.captions}: {bad} of {asked} images cannot be used ({causes}). Nothing was "
            "published. Mend them or raise `max_rejected`."
        )


def _current(memory: Path) -> dict[str, Any] | None:
    try:
        return open_snapshot(memory, resolve_current(memory)).manifest
    except SnapshotError:
        return None


def _built(name: str, manifest: dict[str, Any], skipped: bool) -> Built:
    index = manifest["index"]["key"]
    return Built(name, manifest["rows"], manifest["rejected"], index, skipped)
